# The supervised loss of the recipes: rare classes count more. Without weights, a network with few labels hardly ever predicts them, and
# pseudo-labels cannot teach what the teacher never predicts (docs/results.md).
balanced_loss = dict(
    type='allspark_mmseg.CrossEntropyLoss', class_weight='sqrt_balanced', avg_non_ignore=True
)
