"""What published sequential models show their approximate posterior, read off their public code.

Each entry names the conditions of q at step t, those of the true factor p(z_t | z_{<t}, x_{1:T}) in
the model's own generative story, and the lines of code that say so, at a fixed commit. For a
measurement on one common chain each points to one of `SCHEMES`, the conditions in terms of
`exact.conditions`. The list is a reading of well-known work with public code, not a census.
"""

import html
from dataclasses import dataclass

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.exact.conditions import conditions

SCHEMES = {
    "all": {"first": None, "last": None, "latents": "previous"},
    "all, no latents": {"first": None, "last": None, "latents": "none"},
    "start, then present": {"first": 0, "last": 0, "latents": "previous", "start": 3},
    "past and present": {"first": None, "last": 0, "latents": "earlier"},
    "present": {"first": 0, "last": 0, "latents": "earlier"},
    "past, no latents": {"first": None, "last": 0, "latents": "none"},
}
"""Name of what q sees, and the rule: arguments of `exact.conditions.conditions`."""


@dataclass(frozen=True)
class Model:
    """One published model.

    name: as its authors call it.
    year: of publication.
    citation: key in references.bib.
    sees: conditions of q at step t, in words and symbols.
    needs: conditions of the true factor, beyond which it depends on nothing.
    scheme: one of `SCHEMES`, what remains of the conditions on a chain without controls.
    repository, commit, path: of the code that was read.
    place: where in the file.
    is_world_model: whether it was made to act with.
    remark: what the reading found besides, or "".
    """

    name: str
    year: int
    citation: str
    sees: str
    needs: str
    scheme: str
    repository: str
    commit: str
    path: str
    place: str
    is_world_model: bool = False
    remark: str = ""

    def __post_init__(self):
        _checks.one_of(self.scheme, "scheme", sorted(SCHEMES))

    @property
    def url(self):
        """Address of the file at the commit."""
        return f"https://github.com/{self.repository}/blob/{self.commit}/{self.path}"

    @property
    def lacks(self):
        """What q does not see of what the true factor depends on, in words.

        >>> by_name("VRNN").lacks
        'later observations'
        """
        seen = scheme(self.scheme, 4)
        missing = []
        if seen.is_blind_to_the_future:
            few = " (but for the start)" if self.scheme.startswith("start") else ""
            missing.append(f"later observations{few}")
        if not seen.latents.any():
            missing.append("earlier latents")
        return " and ".join(missing) or "nothing"


DVAE = ("XiaoyuBIE1994/DVAE", "9e1fb94c27d8c712984cb7fefa358e0796931057")
"""Seven dynamical VAEs in one code base, made for Girin et al. (2021)."""

MODELS = (
    Model(
        "STORN",
        2014,
        "bayer2014learning",
        "x₁…xₜ by a forward recurrence; no latents",
        "z₁…zₜ₋₁, x₁…x_T",
        "past, no latents",
        *DVAE,
        "dvae/model/storn.py",
        "STORN.inference",
        remark="A note in that file says that the paper's q stops at xₜ₋₁.",
    ),
    Model(
        "VRNN",
        2015,
        "chung2015recurrent",
        "xₜ and h(x₁…xₜ₋₁, z₁…zₜ₋₁)",
        "z₁…zₜ₋₁, x₁…x_T",
        "past and present",
        *DVAE,
        "dvae/model/vrnn.py",
        "VRNN.forward, VRNN.inference",
        remark="The state h also feeds the emission, which hides part of the gap.",
    ),
    Model(
        "SVAE",
        2016,
        "johnson2016composing",
        "x₁…x_T: Kalman smoothing with learned potentials of each xₜ",
        "zₜ₋₁, xₜ…x_T",
        "all",
        "lindermanlab/SVAE-Revisited",
        "307a11b814f61b4bd9bf9417441a696018047b25",
        "svae/posteriors.py",
        "LDSSVAEPosterior.infer",
        remark="Read in the re-implementation of Zhao and Linderman (2023).",
    ),
    Model(
        "SRNN",
        2016,
        "fraccaro2016sequential",
        "zₜ₋₁ and a backward recurrence over (hₜ, xₜ): x₁…x_T",
        "zₜ₋₁, x₁…x_T",
        "all",
        *DVAE,
        "dvae/model/srnn.py",
        "SRNN.inference",
    ),
    Model(
        "DKF / DMM",
        2017,
        "krishnan2017structured",
        "zₜ₋₁ and a backward recurrence over xₜ…x_T (R, the default)",
        "zₜ₋₁, xₜ…x_T",
        "all",
        "clinicalml/structuredinference",
        "0b583dcdacdc8377242d01cfa95b8a71bab5e6fb",
        "stinfmodel/dkf.py",
        "DKF._inferenceLayer, _buildLSTM",
        remark="Options: L sees x₁…xₜ, LR all; mean_field drops zₜ₋₁.",
    ),
    Model(
        "DVBF, fusion form",
        2017,
        "karl2017deep",
        "zₜ₋₁, uₜ₋₁ and xₜ; z₁ from the first few observations",
        "zₜ₋₁, uₜ₋₁…u_T, xₜ…x_T",
        "start, then present",
        "argmax-ai/deep-variational-bayes-filters",
        "b162a62c0ac7cfa5d9bf5480445c9785ea82aabd",
        "robolab/models/sequence_models/dvbf/fusion_dvbf.py",
        "FusionDVBF._filtered_one_step, initial_state_inference",
        is_world_model=True,
        remark="How many observations z₁ sees is a setting, n_initial_obs; we take three.",
    ),
    Model(
        "DSAE",
        2018,
        "li2018disentangled",
        "x₁…x_T by a bidirectional recurrence, and the content v; no earlier z",
        "z₁…zₜ₋₁, v, xₜ…x_T",
        "all, no latents",
        *DVAE,
        "dvae/model/dsae.py",
        "DSAE.inference",
    ),
    Model(
        "DVRL",
        2018,
        "igl2018deep",
        "xₜ, aₜ₋₁ and the particle's history h(x₁…xₜ₋₁, z₁…zₜ₋₁)",
        "z₁…zₜ₋₁, x₁…x_T, a₁…a_T",
        "past and present",
        "maximilianigl/DVRL",
        "723cb53adc0b2a1928e3355dd046739e9909b834",
        "code/pf_model.py",
        "VRNN_proposal, DVRLPolicy.encode",
        is_world_model=True,
        remark="Trained by a particle bound, which weighs the proposals by what follows.",
    ),
    Model(
        "AVF",
        2018,
        "marino2018general",
        "xₜ, x₁…xₜ₋₁ and zₜ₋₁, by gradients or errors of step t",
        "z₁…zₜ₋₁, x₁…x_T",
        "past and present",
        "joelouismarino/amortized-variational-filtering",
        "21e80fa6e632e3b4c4d5c1b54fbcb4f535e05e58",
        "lib/models/srnn.py",
        "SRNN._get_encoding_form",
        remark="Filtering by design: it treats the amortisation gap.",
    ),
    Model(
        "PlaNet (RSSM)",
        2019,
        "hafner2019learning",
        "xₜ and h(z₁…zₜ₋₁, a₁…aₜ₋₁)",
        "z₁…zₜ₋₁, xₜ…x_T, a₁…a_T",
        "present",
        "google-research/planet",
        "0c6f7d3c56fe691da5b0a2fc62db3cb7075cfcf4",
        "planet/models/rssm.py",
        "RSSM._posterior",
        is_world_model=True,
    ),
    Model(
        "Dreamer (RSSM)",
        2020,
        "hafner2020dream",
        "xₜ and h(z₁…zₜ₋₁, a₁…aₜ₋₁)",
        "z₁…zₜ₋₁, xₜ…x_T, a₁…a_T",
        "present",
        "danijar/dreamer",
        "8436bec77a1298d6f3effe9a235d9afd177ea6cd",
        "models.py",
        "RSSM.obs_step",
        is_world_model=True,
    ),
    Model(
        "RVAE",
        2020,
        "leglaive2020recurrent",
        "z₁…zₜ₋₁ and a backward recurrence over xₜ…x_T",
        "z₁…zₜ₋₁, xₜ…x_T",
        "all",
        *DVAE,
        "dvae/model/rvae.py",
        "RVAE.inference",
        remark="The non-causal variant sees x₁…x_T, as its emission needs.",
    ),
    Model(
        "VRKN, smoothing RSSM",
        2022,
        "becker2022uncertainty",
        "h(z₁…zₜ₋₁, a₁…aₜ₋₁) and a backward recurrence over xₜ…x_T",
        "z₁…zₜ₋₁, xₜ…x_T, a₁…a_T",
        "all",
        "pbecker93/vrkn",
        "ec2b2192b261ad1f22a4991787bcec6c3cef5fd2",
        "ssm_mbrl/rssm/smoothing_preprocessor.py",
        "SmoothPreprocessor",
        is_world_model=True,
        remark="Made to study this; VRKN itself smooths in latent space.",
    ),
    Model(
        "SIXO",
        2022,
        "lawson2022sixo",
        "zₜ₋₁; the future enters by twists r(zₜ, xₜ₊₁…x_T)",
        "zₜ₋₁, xₜ…x_T",
        "all",
        "lindermanlab/sixo",
        "51e0ac255995f9cb9201eb49dd4eca81a3f3440e",
        "models/svm.py",
        "BackwardsTilt.tilt",
        remark="A particle bound whose targets, not the proposals, look ahead.",
    ),
)
"""Read models, by year."""


def by_name(name):
    """The model of that name.

    Raises:
      ValueError: for a name that is not in `MODELS`.

    >>> by_name("SRNN").lacks
    'nothing'
    """
    known = {model.name: model for model in MODELS}
    return known[_checks.one_of(name, "model", sorted(known))]


def scheme(name, num_timesteps):
    """Conditions of one of `SCHEMES` over T steps: `exact.conditions.Conditions`.

    >>> scheme("start, then present", 4).observations.astype(int).tolist()
    [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    """
    rule = SCHEMES[_checks.one_of(name, "scheme", sorted(SCHEMES))]
    return conditions(num_timesteps, **rule)


def hidden_future(name, num_timesteps):
    """Share of the later observations, over all steps, that q is not shown under a scheme.

    >>> [round(hidden_future(name, 4), 3) for name in ("present", "all", "start, then present")]
    [1.0, 0.0, 0.667]
    """
    later = np.triu(np.ones([num_timesteps] * 2, bool), 1)
    return float(1 - scheme(name, num_timesteps).observations[later].mean())


def share(models, holds):
    """Share of `models` for which `holds(model)`.

    Raises:
      ValueError: if there are none.

    >>> share(MODELS, lambda model: model.year > 1900)
    1.0
    """
    models = list(models)
    if not models:
        raise ValueError("There must be at least one model to take a share of, but there is none.")
    return sum(bool(holds(model)) for model in models) / len(models)


class Survey:
    """The table of `MODELS`, with links to the code; as text without them."""

    HEADER = ("model", "q at step t sees", "the true factor depends on", "hidden from q")

    def _rows(self):
        for model in MODELS:
            yield model, (f"{model.name}, {model.year}", model.sees, model.needs, model.lacks)

    def __str__(self):
        return "\n".join("; ".join(cells) for _, cells in self._rows())

    __repr__ = __str__

    def _repr_html_(self):
        head = "".join(f'<th scope="col">{title}</th>' for title in self.HEADER)
        body = "".join(
            f'<tr><th scope="row">{marked(label)}<br>{code_link(model)}</th>'
            + "".join(f"<td>{marked(cell)}</td>" for cell in cells[:-1])
            + f"<td>{marked(cells[-1])}"
            + (f"<br><em>{marked(model.remark)}</em>" if model.remark else "")
            + "</td></tr>"
            for model, (label, *cells) in self._rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def code_link(model):
    """HTML link to the file that was read; its title says where to look in it."""
    label = html.escape(f"code of {model.name}: {model.path}, {model.place}")
    return f'<a href="{html.escape(model.url)}" title="{label}" aria-label="{label}">code</a>'


def marked(words):
    """HTML of a text in which x_T stands for the last observation.

    >>> marked("z & x_T")
    'z &amp; x<sub>T</sub>'
    """
    return html.escape(words).replace("_T", "<sub>T</sub>")
