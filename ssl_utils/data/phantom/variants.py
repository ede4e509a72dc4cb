"""What version 2 of the phantom adds: patients differ in many ways, most of them rare.

A few labelled volumes cannot contain them all, and a network that has not met one fails on it. Version 1 is one patient
with small changes: six labelled volumes of it teach as much as 24.
"""

import numpy as np

from ssl_utils.data.phantom.canvas import CONTRAST, WATER, Canvas

# name: (chance, part, its size over the usual one (0: removed), its shift in mm to the right, the front and the head)
VARIANTS = {
    "splenectomy": (0.06, "spleen", 0, (0, 0, 0)),
    "small spleen": (0.07, "spleen", 0.68, (0, 0, 0)),
    "big spleen": (0.12, "spleen", 1.4, (0, 4, -8)),
    "wandering spleen": (0.05, "spleen", 1, (28, 34, -85)),
    "right nephrectomy": (0.06, "right kidney", 0, (0, 0, 0)),
    "left nephrectomy": (0.06, "left kidney", 0, (0, 0, 0)),
    "small right kidney": (0.07, "right kidney", 0.64, (0, 0, 0)),
    "small left kidney": (0.07, "left kidney", 0.64, (0, 0, 0)),
    "low right kidney": (0.07, "right kidney", 0.95, (-12, 16, -55)),
    "low left kidney": (0.07, "left kidney", 0.95, (12, 16, -60)),
    "cholecystectomy": (0.16, "gallbladder", 0, (0, 0, 0)),
    "contracted gallbladder": (0.1, "gallbladder", 0.62, (0, 0, 4)),
    "distended gallbladder": (0.1, "gallbladder", 1.5, (0, 4, -14)),
    "large liver": (0.1, "liver", 1.13, (0, 0, -6)),
    "shrunken liver": (0.1, "liver", 0.8, (8, 0, 8)),
    "low liver": (0.08, "liver", 1, (0, 0, -26)),
    "gastrectomy": (0.05, "stomach", 0, (0, 0, 0)),
    "empty stomach": (0.15, "stomach", 0.68, (0, 0, 8)),
    "full stomach": (0.12, "stomach", 1.25, (0, 4, -8)),
    "thin pancreas": (0.15, "pancreas", 0.68, (0, 0, 0)),
    "swollen pancreas": (0.08, "pancreas", 1.45, (0, 0, 0)),
    "low pancreas": (0.08, "pancreas", 1, (0, 8, -24)),
    "wide aorta": (0.1, "aorta", 1.35, (0, 0, 0)),
    "flat cava": (0.1, "cava", 0.62, (0, 0, 0)),
    "wide cava": (0.1, "cava", 1.4, (0, 0, 0)),
    "portal hypertension": (0.08, "portal", 1.6, (0, 0, 0)),
    "dilated oesophagus": (0.1, "esophagus", 1.7, (0, 0, 0)),
    "right adrenalectomy": (0.04, "right adrenal", 0, (0, 0, 0)),
    "left adrenalectomy": (0.04, "left adrenal", 0, (0, 0, 0)),
    "thick adrenals": (0.1, "adrenals", 1.5, (0, 0, 0)),
}
MORE = {  # name: chance; drawn by `organs`, `lesions` and `scanner`
    "situs inversus": 0.05, "obese": 0.12, "thin": 0.12, "arms": 0.15, "prone": 0.08, "turned": 0.12, "scoliosis": 0.12,
    "fatty liver": 0.18, "dense liver": 0.07, "left lobe only": 0.05, "right lobe only": 0.05, "liver mass": 0.07,
    "bright lesions": 0.06, "polycystic": 0.05, "hydronephrosis": 0.1, "kidney tumour": 0.08, "excretion": 0.12,
    "gallstones": 0.12, "dense bile": 0.08, "aneurysm": 0.08, "dissection": 0.05, "winding aorta": 0.12,
    "adrenal nodule": 0.14, "spleen lesions": 0.07, "gas": 0.12, "fluid": 0.15, "mass": 0.08, "rods": 0.06,
    "soft kernel": 0.15, "sharp kernel": 0.12, "low dose": 0.15, "thick slices": 0.15, "narrow field": 0.1,
    "short scan": 0.12, "large ascites": 0.06, "brittle bone": 0.12,
}  # fmt: skip
DELAYED = {  # HU minutes after the venous phase
    "aorta": 112, "cava": 114, "portal": 114, "liver": 88, "spleen": 88, "cortex": 150, "medulla": 190, "pancreas": 70,
    "adrenal": 48, "gut": 62, "gallbladder": 14, "myocardium": 84,
}  # fmt: skip


def generator(*, seed: int, kind: str, abnormal: bool, version: int) -> np.random.Generator:
    """Random numbers for what version 1 does not draw."""
    return np.random.default_rng([seed, int(kind == "chest"), int(abnormal), version])


def draw(rng) -> set[str]:
    """The variants of one patient, each by its chance, but only one of a part, and a kidney remains."""
    order = rng.permutation(len(VARIANTS))
    drawn = {name for (name, chance), u in zip(MORE.items(), rng.random(len(MORE)), strict=True) if u < chance}
    parts = {"left kidney": "right nephrectomy", "right kidney": "left nephrectomy"}
    taken = set()
    for i, u in zip(order, rng.random(len(order)), strict=True):
        name = list(VARIANTS)[i]
        chance, part, *_ = VARIANTS[name]
        if u < chance and part not in taken and not ("nephrectomy" in name and parts[part] in drawn):
            drawn.add(name)
            taken.add(part)
    return drawn - ({"right lobe only"} if "left lobe only" in drawn else set())


def fatness(rng, variants: set[str], fat: float) -> float:
    """Thickness of the fat under the skin (mm)."""
    if "obese" in variants:
        return float(rng.uniform(36, 56))
    return float(rng.uniform(1, 5)) if "thin" in variants else fat


def field(rng, variants: set[str], size: np.ndarray, low: np.ndarray) -> None:
    """Change the field of view (mm) in place."""
    size[2] *= rng.uniform(0.86, 1.08)
    low[2] += rng.uniform(-25, 25)
    if "short scan" in variants:
        low[2] += rng.uniform(0, 0.4) * size[2]
        size[2] *= 0.6
    if "arms" in variants:
        size[0] += 120
        low[0] -= 60


def posture(rng, variants: set[str]) -> dict:
    """How the coordinates of this body are bent and scaled: arguments of `Canvas`."""
    bends = (rng.uniform(4, 9), rng.uniform(1.2, 2.4))
    scale = np.clip(rng.normal(1.0, (0.08, 0.08, 0.07)), 0.84, 1.18)
    return {
        "bends": bends,
        "lean": rng.uniform(9, 20) * rng.choice((-1, 1)) if "scoliosis" in variants else 0.0,
        "scale": scale,
    }


def prepare(c: Canvas) -> None:
    """Set the tissues of this patient, and the size and place of the parts."""
    c.spread = 1.7
    for name, (_, part, size, shift) in VARIANTS.items():
        if name in c.findings:
            before, moved = c.parts.get(part, (1.0, np.zeros(3)))
            c.parts[part] = before * size, moved + shift
    enhance(c)


def enhance(c: Canvas) -> None:
    """Set the HU of the tissues: any moment after the injection, more or less of it, and organs that are ill."""
    rng, has = c.rng, c.findings
    moment = 0.0 if rng.random() < 0.2 else rng.uniform(0.3, 3)
    dose, bolus = np.exp(0.22 * rng.standard_normal()), np.exp(0.12 * rng.standard_normal(len(CONTRAST)))
    for (name, hu), own in zip(CONTRAST.items(), bolus, strict=True):
        gain = np.interp(moment, range(4), (*hu, DELAYED[name])) - hu[0]
        c.tissue[name] = float(hu[0] + gain * dose * own + 4 * rng.standard_normal())
    if "fatty liver" in has:
        c.tissue["liver"] -= rng.uniform(35, 75)
    if "dense liver" in has:
        c.tissue["liver"] += rng.uniform(25, 50)
    if "thin pancreas" in has:
        c.tissue["pancreas"] -= rng.uniform(20, 60)
    if "dense bile" in has:
        c.tissue["gallbladder"] = rng.uniform(60, 220)
    c.urine = rng.uniform(180, 700) if "excretion" in has else 15
    c.mottle = rng.uniform(20, 40) if 0.4 < moment < 1.3 else 0  # the spleen takes up contrast unevenly at first


def masses(c: Canvas) -> None:
    """Masses in the fat of the abdomen, which organs painted later cover or push against."""
    rng = c.rng
    for _ in range(rng.integers(1, 4)):
        centre = (rng.uniform(-95, 95), rng.uniform(-40, 50), rng.uniform(-120, 40))
        box, distance = c.ellipsoid(centre, rng.uniform(22, 48, 3), rng.uniform(-40, 40, 3))
        c.paint(c.inside((box, distance + 2 * c.fold[box]), 3), rng.uniform(30, 90), 0)


def lumps(c: Canvas, value: int, count: int, radii: tuple[float, float], hu: float, *, outside: bool = False) -> None:
    """Round lesions in the organ labelled `value`, whose label they keep; `outside`: they bulge out of it."""
    voxels = np.argwhere(c.label[::2, ::2, ::2] == value) * 2
    for index in voxels[c.rng.integers(len(voxels), size=count)] if len(voxels) else ():
        centre = [q[tuple(index)] for q in (c.X, c.Y, c.Z)]
        box, distance = c.ellipsoid(centre, c.rng.uniform(*radii) * c.rng.uniform(0.8, 1.2, 3))
        distance = distance + 1.2 * c.fold[box]
        allowed = np.isin(c.label[box], (0, value)) & (c.room[box] > 2) if outside else c.label[box] == value
        c.paint((box, np.where(allowed, distance, 99)), hu, value if outside else None)


def ill(c: Canvas) -> None:
    """Paint the lesions of version 2; they keep the label of their organ."""
    rng, has, t = c.rng, c.findings, c.tissue
    if not has & MORE.keys():
        return
    kidney = int(rng.choice((2, 3)))
    for name, value, count, radii, hu, outside in (
        ("liver mass", 6, 1, (32, 55), t["liver"] - rng.uniform(-25, 60), False),
        ("bright lesions", 6, 5, (9, 20), t["liver"] + rng.uniform(25, 60), False),
        ("spleen lesions", 1, 3, (8, 18), t["spleen"] - rng.uniform(25, 70), False),
        ("polycystic", 2, 14, (9, 20), WATER, True),
        ("polycystic", 3, 14, (9, 20), WATER, True),
        ("kidney tumour", kidney, 1, (16, 32), t["medulla"] - rng.uniform(0, 40), True),
        ("adrenal nodule", 12 if kidney == 3 else 13, 1, (8, 15), rng.uniform(-10, 40), True),
    ):
        if name in has:
            lumps(c, value, count, radii, hu, outside=outside)
    if "large ascites" in has:
        free = (c.label == 0) & (c.hu < -60) & (c.hu > -140) & (c.room > 1.5) & (c.Y > -40)
        c.hu[free] = WATER + 3
