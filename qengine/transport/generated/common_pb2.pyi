from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Blame(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BLAME_UNSPECIFIED: _ClassVar[Blame]
    BLAME_USER: _ClassVar[Blame]
    BLAME_LIMIT: _ClassVar[Blame]
    BLAME_CLUSTER: _ClassVar[Blame]
    BLAME_DATA: _ClassVar[Blame]
    BLAME_BUG: _ClassVar[Blame]
BLAME_UNSPECIFIED: Blame
BLAME_USER: Blame
BLAME_LIMIT: Blame
BLAME_CLUSTER: Blame
BLAME_DATA: Blame
BLAME_BUG: Blame

class TaskId(_message.Message):
    __slots__ = ("query", "fragment", "number")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FRAGMENT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    query: str
    fragment: int
    number: int
    def __init__(self, query: _Optional[str] = ..., fragment: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class AttemptId(_message.Message):
    __slots__ = ("task", "attempt", "epoch")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    attempt: int
    epoch: int
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., attempt: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("line", "column", "start", "end")
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    line: int
    column: int
    start: int
    end: int
    def __init__(self, line: _Optional[int] = ..., column: _Optional[int] = ..., start: _Optional[int] = ..., end: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "blame", "retryable", "message", "span", "hint", "details_json")
    CODE_FIELD_NUMBER: _ClassVar[int]
    BLAME_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    code: str
    blame: Blame
    retryable: bool
    message: str
    span: Span
    hint: str
    details_json: str
    def __init__(self, code: _Optional[str] = ..., blame: _Optional[_Union[Blame, str]] = ..., retryable: _Optional[bool] = ..., message: _Optional[str] = ..., span: _Optional[_Union[Span, _Mapping]] = ..., hint: _Optional[str] = ..., details_json: _Optional[str] = ...) -> None: ...

class PartRef(_message.Message):
    __slots__ = ("digest", "uri", "rows", "bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    uri: str
    rows: int
    bytes: int
    def __init__(self, digest: _Optional[str] = ..., uri: _Optional[str] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...
