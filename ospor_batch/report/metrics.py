"""How each metric of the tables is headed, explained and rounded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is headed, explained and rounded; scale 100 prints a share in percent."""

    heading: str
    explains: str
    digits: int = 3
    scale: float = 1.0


METRICS: dict[str, Metric] = {
    "auc": Metric("AUC", "Area under the ROC curve: how well the score ranks people with above people without the condition."),
    "auc_within_center": Metric(
        "AUC within centers", "Over pairs of people of one center, so that differences between centers do not enter."
    ),
    "partial_auc": Metric(
        "Partial AUC", "Up to the declared false positive rate, standardised after McClish: 0.5 is chance, 1 is perfect."
    ),
    "sensitivity_at_specificity": Metric(
        "Sensitivity at declared specificity (%)", "At the cut-off that these very people need for it: exploratory.", 1, 100
    ),
    "specificity_at_sensitivity": Metric(
        "Specificity at declared sensitivity (%)", "At the cut-off that these very people need for it: exploratory.", 1, 100
    ),
    "sensitivity": Metric(
        "Sensitivity (%)", "Called positive among people with the condition, at the locked threshold.", 1, 100
    ),
    "specificity": Metric(
        "Specificity (%)", "Called negative among people without the condition, at the locked threshold.", 1, 100
    ),
    "ppv": Metric("PPV (%)", "With the condition among those called positive, at the prevalence of these people.", 1, 100),
    "npv": Metric("NPV (%)", "Without the condition among those called negative, at the prevalence of these people.", 1, 100),
    "f1": Metric("F1", "2 TP / (2 TP + FP + FN); the positive class is the target condition."),
    "accuracy": Metric("Accuracy (%)", "Called rightly among all.", 1, 100),
    "balanced_accuracy": Metric("Balanced accuracy (%)", "Mean of sensitivity and specificity.", 1, 100),
    "ppv_at_prevalence": Metric(
        "PPV at declared prevalence (%)", "PPV restated at the prevalence that the study declares.", 1, 100
    ),
    "npv_at_prevalence": Metric(
        "NPV at declared prevalence (%)", "NPV restated at the prevalence that the study declares.", 1, 100
    ),
    "positive_fraction": Metric("Called positive (%)", "Share of the labelled people called positive.", 1, 100),
    "prev_label": Metric(
        "Prevalence by reference (%)", "Share with the condition among people with a label in the window.", 1, 100
    ),
    "prev_test_positive": Metric(
        "Called positive (%)", "Share called positive among everyone scored, labelled or not.", 1, 100
    ),
    "prev_corrected": Metric(
        "Prevalence corrected (%)", "Rogan-Gladen: the share called positive, corrected for model error.", 1, 100
    ),
    "lr_positive": Metric("LR+", "Positive likelihood ratio: sensitivity over 1 − specificity.", 2),
    "lr_negative": Metric("LR−", "Negative likelihood ratio: 1 − sensitivity over specificity.", 2),
    "youden": Metric("Youden J", "Sensitivity plus specificity minus 1."),
    "mcc": Metric("MCC", "Matthews correlation of call and truth."),
    "kappa": Metric("κ", "Cohen's kappa of call and truth."),
    "sensitivity_corrected": Metric(
        "Sensitivity corrected (%)", "Begg-Greenes: as if everybody scored had been sent to the reference standard.", 1, 100
    ),
    "specificity_corrected": Metric(
        "Specificity corrected (%)", "Begg-Greenes: as if everybody scored had been sent to the reference standard.", 1, 100
    ),
    "prev_label_standardised": Metric(
        "By reference, standardised (%)", "Directly by age and sex to the declared standard population.", 1, 100
    ),
    "prev_test_positive_standardised": Metric(
        "Called positive, standardised (%)", "Directly by age and sex to the declared standard population.", 1, 100
    ),
    "prev_label_begg_greenes": Metric(
        "By reference, corrected for referral by call (%)",
        "Begg-Greenes: from the verified within each call to everybody.",
        1,
        100,
    ),
    "prev_label_weighted": Metric(
        "By reference, weighted for referral (%)", "Inverse probability of being verified by score, age, sex, center.", 1, 100
    ),
    "icc_a_1": Metric("ICC(A,1)", "Absolute agreement of single values, two-way random effects; 1 is identity."),
    "concordance": Metric("CCC", "Lin's concordance correlation."),
    "proportional_bias": Metric("Proportional bias", "Slope of the difference on the mean of both values."),
    "bias_at_cut": Metric(
        "Bias at the cut-off",
        "Predicted minus reference where the reference stands at the cut-off, off the line of all people.",
    ),
    "bias_below_cut": Metric("Bias below the cut-off", "Mean difference in people below the lower clinical cut-off."),
    "bias_near_cut": Metric("Bias between the cut-offs", "Mean difference in people between the clinical cut-offs."),
    "bias_above_cut": Metric("Bias above the cut-off", "Mean difference in people above the upper clinical cut-off."),
    "pearson_r": Metric("Pearson r", "Linear correlation of predicted and reference value."),
    "spearman_rho": Metric("Spearman ρ", "Rank correlation of predicted and reference value."),
    "bias": Metric("Bias", "Mean of predicted minus reference value."),
    "sd_of_differences": Metric("SD of differences", "Standard deviation of predicted minus reference value."),
    "loa_lower": Metric("Lower limit of agreement", "Bias minus 1.96 SD."),
    "loa_upper": Metric("Upper limit of agreement", "Bias plus 1.96 SD."),
    "mae": Metric("MAE", "Mean absolute difference."),
    "rmse": Metric("RMSE", "Root of the mean squared difference."),
}
MORE = {  # shown in a table of their own below the main one
    "lr_positive", "lr_negative", "youden", "mcc", "kappa", "sensitivity_corrected", "specificity_corrected",
    "prev_label_standardised", "prev_test_positive_standardised", "prev_label_begg_greenes", "prev_label_weighted", "icc_a_1",
    "concordance", "proportional_bias", "bias_at_cut", "bias_below_cut", "bias_near_cut", "bias_above_cut",
}  # fmt: skip
# numerator and denominator of each proportion as sums of cells (methods S2)
FRACTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sensitivity": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "ppv": (("tp",), ("tp", "fp")),
    "npv": (("tn",), ("tn", "fn")),
    "accuracy": (("tp", "tn"), ("tp", "fp", "fn", "tn")),
    "positive_fraction": (("tp", "fp"), ("tp", "fp", "fn", "tn")),
}
