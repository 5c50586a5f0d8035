"""The base of Katib's objects: reading from and writing to JSON's camelCase mappings. Unknown fields are kept."""

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timezone
from types import NoneType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin

from katib_callbacks.metrics import parse_timestamp

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform() -> Any:
        """Return a decorator that does nothing: only type checkers read it."""
        return lambda kind: kind


ModelT = TypeVar("ModelT", bound="Model")


class Field(NamedTuple):
    """A field of a model: one value of a kind, or a list of them."""

    name: str
    kind: type
    is_list: bool


def camel_case(name: str) -> str:
    """Return the JSON name of an attribute: ``max_trial_count`` is ``maxTrialCount``."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


@dataclass_transform()
class Model:
    """The base of all models: dataclasses whose fields are None by default, read from JSON's mappings and written."""

    known_fields: ClassVar[tuple[Field, ...]]

    def __init_subclass__(cls) -> None:
        made: Any = dataclasses.dataclass(cls)
        cls.known_fields = tuple(Field(one.name, *_kind(one.type)) for one in dataclasses.fields(made))

    @classmethod
    def from_dict(cls: type[ModelT], data: Mapping[str, Any]) -> ModelT:  # noqa: PYI019  typing.Self came with 3.11
        """Read the mapping that JSON or YAML gives, with camelCase names. What is not known here is kept."""
        known = {camel_case(field.name): field for field in cls.known_fields}
        read = cls(**{field.name: _read(field, data[name]) for name, field in known.items() if name in data})
        read.__dict__["unknown"] = {name: value for name, value in data.items() if name not in known}
        return read

    def serialize(self) -> dict[str, Any]:
        """Return the mapping that JSON and YAML take, without what is None."""
        values = {camel_case(field.name): getattr(self, field.name) for field in self.known_fields}
        written = {name: plain(value) for name, value in values.items() if value is not None}
        return {**written, **plain(self.__dict__.get("unknown", {}))}

    def _repr_html_(self) -> str:
        from katib_callbacks.pictures.notebook import object_html  # noqa: PLC0415  in notebooks alone

        return object_html(self.serialize())

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping with the attributes' own names, nested, None included: upstream's ``to_dict``."""
        return {field.name: _to_dict(getattr(self, field.name)) for field in self.known_fields}


def model(name: str, /, **fields: Any) -> Any:
    """Make a model for this package alone: each field's type, or a list with the type of its items."""
    kinds = {each: list[kind[0]] if isinstance(kind, list) else kind for each, kind in fields.items()}  # type: ignore[valid-type]
    annotations = {each: kind | None for each, kind in kinds.items()}
    return type(name, (Model,), {"__annotations__": annotations, **dict.fromkeys(fields)})


def _kind(annotation: Any) -> tuple[type, bool]:
    """Return the type that an annotation names, and whether there is a list of them: ``list[str] | None``."""
    if hasattr(annotation, "__metadata__"):  # Annotated[Any, dict]: any type in Python, a mapping in JSON
        return annotation.__metadata__[0], False
    named = [each for each in get_args(annotation) if each is not NoneType]
    kind = named[0] if named else object
    (item,) = get_args(kind) if get_origin(kind) is list else (kind,)
    return get_origin(item) or item, item is not kind


def _read(field: Field, value: Any) -> Any:
    if field.is_list and isinstance(value, (list, tuple)):
        return [_read_one(field.kind, item) for item in value]
    return _read_one(field.kind, value)


def _read_one(kind: type, value: Any) -> Any:
    if issubclass(kind, Model) and isinstance(value, Mapping):
        return kind.from_dict(value)
    if kind is datetime and isinstance(value, str):
        return parse_timestamp(value)
    return value


def _to_dict(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    return [_to_dict(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Turn models into JSON's mappings and lists: ours, and those of upstream's and Kubernetes' SDKs.

    Theirs are read only by their ``attribute_map``, {attribute: JSON name}, so that neither package need be installed.
    """
    if isinstance(value, Model):
        return value.serialize()
    names = getattr(type(value), "attribute_map", None)
    if isinstance(names, Mapping):
        pairs = ((names[attribute], getattr(value, attribute, None)) for attribute in names)
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {plain(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):  # Kubernetes' times are to the second
        return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _unicode(value) if isinstance(value, str) else value


def _unicode(text: str) -> str:
    """Return a text in which half a pair of surrogates is U+FFFD, as Go reads it."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
