"""The paper's own figures, to stand beside ours: Tables III to XI of the GTS-GN paper.

Source: "Geometric two-stream graph network" (GTS-GN) for micro-expression recognition, the paper that this
project follows (docs/reproduction.md). Rows are called as `train.tables` calls them. ACC in percent, F1 as
printed. Numbers of samples are not printed there: those of `SAMPLES` are inferred from the percentages.
"""

from __future__ import annotations

from typing import NamedTuple


class Figures(NamedTuple):
    """accuracy: percent. f1: 0 to 1. None: not given."""

    accuracy: float | None
    f1: float | None


def _rows(text: str) -> dict[str, dict[str, Figures]]:
    """Lines of "name | ACC F1 | ACC F1": CASME II, then SAMM; "-" where the paper gives none."""
    rows = {}
    for line in text.strip().splitlines():
        name, *databases = (part.strip() for part in line.split("|"))
        values = [[None if v == "-" else float(v) for v in part.split()] for part in databases]
        rows[name] = {key: Figures(*pair) for key, pair in zip(("casme2", "samm"), values, strict=True)}
    return rows


PAPER: dict[str, dict[str, dict[str, Figures]]] = {
    "III": _rows("""
        ResNet18 (S)            | 66.13 .588 | 68.57 .649
        ResNet18 (ST)           | 71.31 .669 | 72.13 .686
        GCN                     | 70.12 .690 | 70.21 .661
        SS-GN                   | 72.90 .716 | 75.17 .732
    """),
    "IV": _rows("""
        GCN + type A            | 70.12 .690 | 70.21 .661
        SS-GN + type A          | 72.91 .716 | 75.17 .732
        SS-GN + type B          | 72.91 .710 | 73.05 .693
        GTS-GN (layer 1)        | 73.31 .717 | 76.60 .729
        GTS-GN (layer 2)        | 72.91 .714 | 75.17 .723
        GTS-GN (layer 3)        | 71.71 .690 | 73.05 .708
        GTS-GN (layer 4)        | 68.13 .640 | 75.89 .741
    """),
    "V": _rows("""
        GTS-GN                  | 73.31 .717 | 75.89 .741
        GTS-GN + LAM            | 74.90 .732 | 78.01 .782
        GTS-GN + AAU            | 76.10 .745 | 78.01 .756
        GTS-GN + LAM + AAU      | 77.29 .765 | 79.43 .782
    """),
    "VI": _rows("""
        GTS-GN                  | 72.91 .697 | 70.92 .673
        AU loss 1               | 73.31 .712 | 75.18 .743
        AU loss 2               | 71.71 .697 | 74.47 .713
        AU loss 3               | 73.31 .727 | 75.18 .729
        AU loss 4               | 72.91 .708 | 75.18 .724
    """),
    "VII": _rows("""
        layer 1, basic          | 72.91 .697 | 70.92 .673
        layer 1, AU loss        | 73.31 .728 | 75.18 .743
        layer 1, AAU loss       | 75.70 .749 | 77.30 .765
        layer 2, basic          | 74.10 .730 | 76.60 .739
        layer 2, AU loss        | 74.50 .738 | 75.18 .722
        layer 2, AAU loss       | 77.29 .765 | 79.43 .778
        layer 3, basic          | 74.90 .720 | 73.76 .700
        layer 3, AU loss        | 75.30 .745 | 77.30 .767
        layer 3, AAU loss       | 75.30 .744 | 78.72 .782
        layer 4, basic          | 70.52 .688 | 78.01 .782
        layer 4, AU loss        | 71.31 .697 | 77.30 .753
    """),
    "IX": _rows("""
        14 points               | 72.91 .716 | 75.17 .732
        31 points               | 72.91 .693 | 72.34 .691
        68 points               | 72.50 .704 | 68.79 .608
    """),
    "X": _rows("""
        LBP-TOP                 | 67.80 .510 | 44.70 .350
        HOOF                    | 69.64 .560 | 42.17 .330
        HOG3D                   | 69.53 .510 | 34.16 .220
        TL                      | 75.68 .650 | 70.59 .540
        ELRCN-TE                | 52.44 .500 | - -
        GTS-GN + LAM + AAU      | 87.21 .848 | 72.06 .709
    """),
    "XI": _rows("""
        Hierarchical LBP-IP     | 63.83 .61  | - -
        Discriminative LBP-IP   | 64.78 -    | - -
        Sparse MDMO             | 66.95 .691 | - -
        LBP-SDG                 | 71.32 .665 | - -
        KTGSL                   | 72.58 .682 | 56.11 .493
        SSSN                    | 71.19 .715 | 56.62 .451
        DSSN                    | 70.78 .729 | 57.35 .464
        G-TCN                   | 73.98 .725 | 75.00 .699
        GEME                    | 75.20 .735 | 55.88 .454
        LGCcon                  | 65.02 .640 | 40.90 .340
        GRAUF                   | 74.27 .705 | 74.26 .705
        GACN                    | 81.30 .709 | 88.24 .828
        GTS-GN + LAM + AAU      | 81.78 .812 | 71.32 .711
    """),
    # Figure 9 prints its best points in words alone; beta 1 is the last row of Table V.
    "Figure 9": _rows("""
        beta 0.1                | 78.49 -    | - -
        beta 0.2                | - -        | 80.14 -
        beta 1                  | 77.29 .765 | 79.43 .782
    """),
}
"""Table -> row -> database -> figures. The first figure of a pair that Table IV(a) calls GTS-GN + type B is
layer 1's on CASME II and layer 4's on SAMM, as Table IV(b) shows; Table V's rows without AAU are of different
fusion layers, too, and Tables VI and VII seem to have LAM on (their rows meet those of Table V)."""

COSTS: dict[str, tuple[float, int]] = {
    "ResNet18 (ST)": (0.0309, 11_179_590),
    "GCN": (0.0038, 39_760),
    "SS-GN": (0.0050, 163_710),
}
"""Table III(b): seconds a sample on a GTX 1050, parameters (six classes)."""

AAU_WEIGHTS: tuple[tuple[float, float, float, float], ...] = (
    (0.5662, 0.4127, 0.0010, 0.0201),
    (0.6992, 0.2246, 0.0118, 0.0643),
    (0.6732, 0.2727, 0.0064, 0.0477),
    (0.5312, 0.4448, 0.0055, 0.0119),
    (0.6153, 0.3296, 0.0005, 0.0546),
    (0.6404, 0.3064, 0.0003, 0.0529),
    (0.6879, 0.2514, 0.0111, 0.0497),
    (0.6078, 0.3593, 0.0000, 0.0329),
    (0.6376, 0.2848, 0.0002, 0.0774),
    (0.6724, 0.2545, 0.0025, 0.0705),
    (0.6411, 0.3087, 0.0005, 0.0498),
    (0.6625, 0.2844, 0.0033, 0.0499),
    (0.6161, 0.3341, 0.0002, 0.0495),
    (0.6056, 0.3657, 0.0000, 0.0287),
    (0.6035, 0.3484, 0.0009, 0.0417),
    (0.6801, 0.2621, 0.0080, 0.0498),
    (0.5765, 0.3853, 0.0025, 0.0357),
    (0.6387, 0.3238, 0.0017, 0.0358),
    (0.6515, 0.3021, 0.0022, 0.0441),
    (0.6758, 0.2470, 0.0027, 0.0745),
    (0.5488, 0.4267, 0.0033, 0.0211),
    (0.6039, 0.3501, 0.0007, 0.0452),
    (0.6418, 0.3126, 0.0009, 0.0446),
    (0.6341, 0.3256, 0.0007, 0.0396),
    (0.6668, 0.2760, 0.0035, 0.0537),
    (0.6781, 0.2558, 0.0050, 0.0611),
)
"""Table VIII, CASME II: W_r^2 / sum W_r^2 of layers 1 to 4, subjects 1 to 26. As printed, those of
subjects 4 and 15 sum to 0.993 and 0.995."""

AAU_MEAN = (0.6329, 0.3172, 0.0029, 0.0464)
"""Last row of Table VIII."""

SAMPLES: dict[tuple[str, str], int] = {
    ("objective", "casme2"): 251,  # 78.49 % = 197 of 251
    ("objective", "samm"): 141,  # 75.89 % = 107 of 141
    ("objective5", "casme2"): 172,  # 87.21 % = 150 of 172
    ("objective5", "samm"): 68,  # 72.06 % = 49 of 68
    ("self-report", "casme2"): 247,  # 81.78 % = 202 of 247
    ("self-report", "samm"): 136,  # 71.32 % = 97 of 136
}
"""(setting, database) -> samples, **inferred** from the printed percentages."""
