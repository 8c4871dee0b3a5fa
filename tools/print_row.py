"""Print the commands that reproduce a published row, or list the rows.

    python tools/print_row.py                          # all rows: labels, published mIoU
    python tools/print_row.py unimatch                 # the rows whose name contains a word
    python tools/print_row.py unimatch_voc_92_r101-d16 # the commands of one row

The rows come from the metafiles, configs/METHOD/metafile.yml.
"""

import argparse
from pathlib import Path

import yaml

# its repository holds the lists that follow no rule
REFERENCE = 'https://github.com/xmed-lab/AllSpark'
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
DATASETS = {'Pascal VOC 2012': 'voc', 'Cityscapes': 'cityscapes', 'COCO 2017': 'coco'}


def read_rows() -> dict[str, dict]:
    """Return the rows of all metafiles by name."""
    paths = sorted(CONFIGS.glob('*/metafile.yml'))
    models = [model for path in paths for model in yaml.safe_load(path.read_text())['Models']]
    return {model['Name']: model for model in models}


def list_rows(rows: dict[str, dict]) -> str:
    """Return a table of rows: name, labeled images, published mIoU and its source."""
    lines = [f'{"row":50} {"labels":>6} {"mIoU":>6}']
    for name, row in rows.items():
        result = (row.get('Results') or [{}])[0]
        miou = result.get('Metrics', {}).get('mIoU', '')
        lines.append(
            f'{name:50} {row["Metadata"]["Labeled Images"]:6} {miou:>6} {result.get("Source", "")}'.rstrip()
        )
    return '\n'.join(lines)


def list_commands(row: dict) -> str:
    """Return the commands of one row: make the lists, train, test."""
    dataset = DATASETS[row['Metadata']['Training Data']]
    gpus, config = row['Metadata']['GPUs'], row['Config']
    options = ' '.join(f'{key}={value}' for key, value in row.get('Options', {}).items())
    options = f' \\\n    --cfg-options {options}' if options else ''
    folder, name = Path(config).parent.name, row['Name']
    work_dir = f'work_dirs/{folder}/{name}'
    return '\n'.join(
        [
            f'python tools/dataset_converters/make_splits.py {dataset} --reference {REFERENCE}',
            f'tools/dist_train.sh {config} {gpus} --work-dir {work_dir}{options}',
            f'tools/dist_test.sh {config} {work_dir}/best_mIoU_*.pth {gpus}{options}',
        ]
    )


def main() -> None:
    """Print a table of rows, or the commands of one."""
    parser = argparse.ArgumentParser(description='Print the commands of a published row, or list the rows')
    parser.add_argument('name', nargs='?', default='', help='a row, or part of the names to list')
    name = parser.parse_args().name
    rows = read_rows()
    if name in rows:
        print(list_commands(rows[name]))
        return
    chosen = {row: model for row, model in rows.items() if name in row}
    if not chosen:
        raise SystemExit(f"print_row: no row name contains '{name}'. Run it without a name to list all rows.")
    print(list_rows(chosen))


if __name__ == '__main__':
    main()
