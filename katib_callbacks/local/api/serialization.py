"""The base of Katib's objects: reading from and writing to JSON's camelCase mappings. Unknown fields are kept."""

import dataclasses
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from katib_callbacks.metrics import format_timestamp, parse_timestamp

ModelT = TypeVar("ModelT", bound="Model")


def scalar(kind: type, *, many: bool = False) -> Any:
    """Make a dataclass field, None by default, that holds one value of a type, or a list of them."""
    return dataclasses.field(default=None, metadata={"kind": kind, "many": many})


def model(kind: "type[Model]", *, many: bool = False) -> Any:
    """Make a dataclass field, None by default, that holds one model, or a list of them."""
    return dataclasses.field(default=None, metadata={"kind": kind, "many": many})


def camel_case(name: str) -> str:
    """Return the JSON name of an attribute: ``max_trial_count`` is ``maxTrialCount``."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


class Model:
    """The base of all models: reading from and writing to JSON's mappings."""

    @classmethod
    def from_dict(cls: type[ModelT], data: Mapping[str, Any]) -> ModelT:  # noqa: PYI019  typing.Self came with 3.11
        """Read the mapping that JSON or YAML gives, with camelCase names. What is not known here is kept."""
        known = {camel_case(field.name): field for field in model_fields(cls)}
        read = cls(**{field.name: _read(field, data[name]) for name, field in known.items() if name in data})
        read.__dict__["unknown"] = {name: value for name, value in data.items() if name not in known}
        return read

    def serialize(self) -> dict[str, Any]:
        """Return the mapping that JSON and YAML take, without what is None."""
        values = {camel_case(field.name): getattr(self, field.name) for field in model_fields(type(self))}
        written = {name: _write(value) for name, value in values.items() if value is not None}
        return {**written, **self.__dict__.get("unknown", {})}

    def _repr_html_(self) -> str:
        from katib_callbacks.pictures.notebook import object_html  # noqa: PLC0415  in notebooks alone

        return object_html(self.serialize())

    def to_dict(self) -> dict[str, Any]:
        """Return a mapping with the attributes' own names, nested, None included: upstream's ``to_dict``."""
        return {field.name: _to_dict(getattr(self, field.name)) for field in model_fields(type(self))}


def model_fields(kind: "type[Model]") -> "Iterator[dataclasses.Field[Any]]":
    """Yield the fields of a model's class; each has ``kind`` and ``many`` in its metadata."""
    yield from dataclasses.fields(kind)  # type: ignore[arg-type]  # every subclass is a dataclass


def _read(field: "dataclasses.Field[Any]", value: Any) -> Any:
    kind = field.metadata["kind"]
    if field.metadata["many"] and isinstance(value, (list, tuple)):
        return [_read_one(kind, item) for item in value]
    return _read_one(kind, value)


def _read_one(kind: type, value: Any) -> Any:
    if issubclass(kind, Model) and isinstance(value, Mapping):
        return kind.from_dict(value)
    if kind is datetime and isinstance(value, str):
        return parse_timestamp(value)
    return value


def _write(value: Any) -> Any:
    if isinstance(value, Model):
        return value.serialize()
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")  # Kubernetes' times are to the second
    if isinstance(value, Mapping):
        return {name: _write(item) for name, item in value.items()}
    return [_write(item) for item in value] if isinstance(value, (list, tuple)) else value


def _to_dict(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    return [_to_dict(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Turn models into JSON's mappings and lists: ours, and those of upstream's and Kubernetes' SDKs.

    Theirs are read only by their ``attribute_map``, {attribute: JSON name}, so that neither package need be installed.
    """
    if isinstance(value, Model):
        return plain(value.serialize())
    names = getattr(type(value), "attribute_map", None)
    if isinstance(names, Mapping):
        pairs = ((names[attribute], getattr(value, attribute, None)) for attribute in names)
        return {name: plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return format_timestamp(value) if isinstance(value, datetime) else value
