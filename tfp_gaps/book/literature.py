"""What published sequential models show their approximate posterior, read off their public code.

`book/literature.yml` holds the list, `MODELS` here. Each entry names the conditions of q at step t,
those of the true factor p(z_t | z_{<t}, x_{1:T}) in the model's own generative story, and the lines
of code that say so, at a fixed commit. For a measurement on one common chain each points to one of
`SCHEMES`, the conditions in terms of `exact.conditions`. The list is a reading of well-known work
with public code, not a census.
"""

import dataclasses
import functools
import html
import re

import numpy as np

from tfp_gaps import _checks
from tfp_gaps.book import files
from tfp_gaps.exact.conditions import conditions

SCHEMES = {
    "all": {"first": None, "last": None, "latents": "previous"},
    "all, no latents": {"first": None, "last": None, "latents": "none"},
    "start, then present": {"first": 0, "last": 0, "latents": "previous", "start": 3},
    "past and present": {"first": None, "last": 0, "latents": "earlier"},
    "present": {"first": 0, "last": 0, "latents": "earlier"},
    "past, no latents": {"first": None, "last": 0, "latents": "none"},
    "present, no latents": {"first": 0, "last": 0, "latents": "none"},
}
"""Name of what q sees, and the rule: arguments of `exact.conditions.conditions`."""

TITLES = {
    "all": "all observations",
    "all, no latents": "all, no latents",
    "start, then present": "start, then the present",
    "past and present": "past and present",
    "present": "present and latents",
    "past, no latents": "past and present, no latents",
    "present, no latents": "the present alone",
}
"""How the pages call each of `SCHEMES`."""

_CONTROLS = {"a": "actions", "u": "controls"}
"""Letters of what acts on a model, and the words."""

_FORMATS = {
    "repository": (r"[\w.-]+/[\w.-]+", "owner/name"),
    "commit": (r"[0-9a-f]{40}", "40 hexadecimal digits"),
    "path": (r"[\w./-]+\.py", "the path of a Python file"),
}


@dataclasses.dataclass(frozen=True)
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
    is_world_model: whether it was built for control.
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
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            pattern, wanted = _FORMATS.get(field.name, (r"(?s).*\S.*", "some text"))
            fits = type(value) is field.type
            if field.type is str and (value or field.default is dataclasses.MISSING):
                fits = fits and re.fullmatch(pattern, value)
            if not fits:
                wanted = wanted if field.type is str else f"of type {field.type.__name__}"
                raise ValueError(f"{field.name} must be {wanted}, but is {value!r}.")
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
        for letter, words in _CONTROLS.items():
            if f"{letter}_T" in self.needs and f"{letter}_T" not in self.sees:
                missing.append(f"later {words}")
        if not seen.latents.any():
            missing.append("earlier latents")
        *rest, last = missing or ["nothing"]
        return f"{', '.join(rest)} and {last}" if rest else last


def load(path=None):
    """Read and check the list of models.

    Args:
      path: of the file; by default the book's own, see `files.find`.

    Returns:
      tuple of `Model`, in the order of the file, which is by year.

    Raises:
      ValueError: naming the entry and the field that is not as it should be.
      FileNotFoundError: if the book's own file is not found.
    """
    path, models = files.find("literature.yml") if path is None else path, {}
    fields = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(Model)}
    for number, entry in enumerate(files.read_list(path, "models"), start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict):
            raise ValueError(f"{where} must be key: value pairs, but is {type(entry).__name__}.")
        missing = [name for name, needed in fields.items() if needed and name not in entry]
        unknown = [str(name) for name in entry if name not in fields]
        if missing or unknown:
            raise ValueError(
                f"{where}: missing fields {missing}, unknown fields {unknown}. Known here: "
                f"{', '.join(fields)}."
            )
        try:
            model = Model(**entry)
        except ValueError as error:
            raise ValueError(f"{where} ({entry['name']}): {error}") from error
        if model.name in models:
            raise ValueError(f"{where}: the name {model.name} was used before. Give another.")
        models[model.name] = model
    return tuple(models.values())


_models = functools.cache(load)


def __getattr__(name):
    """`MODELS`, read when first asked for: not every import is made in a checkout of the book."""
    if name != "MODELS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _models()


def by_name(name):
    """The model of that name.

    Raises:
      ValueError: for a name that is not in `MODELS`.

    >>> by_name("SRNN").lacks
    'nothing'
    """
    known = {model.name: model for model in _models()}
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

    >>> share(load(), lambda model: model.year > 1900)
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
        for model in _models():
            yield model, (f"{model.name}, {model.year}", model.sees, model.needs, model.lacks)

    def __str__(self):
        return "\n".join("; ".join(cells) for _, cells in self._rows())

    __repr__ = __str__

    def _repr_html_(self):
        # Drawn for a page only, and graphs takes the schemes from this module.
        from tfp_gaps.book.figures import graphs

        head = "".join(f'<th scope="col">{title}</th>' for title in self.HEADER)
        body = "".join(
            f'<tr><th scope="row">{marked(label)}<br>{code_link(model)}</th>'
            + "".join(f"<td>{marked(cell)}</td>" for cell in cells[:-1])
            + f"<td>{marked(cells[-1])}<br>{graphs.graph(model.scheme)}"
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
