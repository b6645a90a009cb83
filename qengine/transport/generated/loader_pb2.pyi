from qengine.transport.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Load(_message.Message):
    __slots__ = ("id", "number", "catalog", "state", "snapshot", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    number: int
    catalog: str
    state: str
    snapshot: int
    error: str
    def __init__(self, id: _Optional[str] = ..., number: _Optional[int] = ..., catalog: _Optional[str] = ..., state: _Optional[str] = ..., snapshot: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ("protocol", "catalog", "context_json")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_JSON_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    catalog: str
    context_json: str
    def __init__(self, protocol: _Optional[int] = ..., catalog: _Optional[str] = ..., context_json: _Optional[str] = ...) -> None: ...

class LoadReply(_message.Message):
    __slots__ = ("load", "error")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    load: Load
    error: _common_pb2.Error
    def __init__(self, load: _Optional[_Union[Load, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class ContributeRequest(_message.Message):
    __slots__ = ("contribution", "data")
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    contribution: Contribution
    data: bytes
    def __init__(self, contribution: _Optional[_Union[Contribution, _Mapping]] = ..., data: _Optional[bytes] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("protocol", "load", "request_json", "options_json", "contributor", "uris", "stream")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_JSON_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTOR_FIELD_NUMBER: _ClassVar[int]
    URIS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    load: str
    request_json: str
    options_json: str
    contributor: str
    uris: _containers.RepeatedScalarFieldContainer[str]
    stream: Stream
    def __init__(self, protocol: _Optional[int] = ..., load: _Optional[str] = ..., request_json: _Optional[str] = ..., options_json: _Optional[str] = ..., contributor: _Optional[str] = ..., uris: _Optional[_Iterable[str]] = ..., stream: _Optional[_Union[Stream, _Mapping]] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("label", "version", "format", "sha256")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    label: str
    version: str
    format: str
    sha256: str
    def __init__(self, label: _Optional[str] = ..., version: _Optional[str] = ..., format: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class ContributeReply(_message.Message):
    __slots__ = ("receipt_json", "error")
    RECEIPT_JSON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    receipt_json: str
    error: _common_pb2.Error
    def __init__(self, receipt_json: _Optional[str] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("protocol", "load", "wait_s")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WAIT_S_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    load: str
    wait_s: float
    def __init__(self, protocol: _Optional[int] = ..., load: _Optional[str] = ..., wait_s: _Optional[float] = ...) -> None: ...

class CommitEvent(_message.Message):
    __slots__ = ("progress", "done", "error")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    progress: CommitProgress
    done: CommitDone
    error: _common_pb2.Error
    def __init__(self, progress: _Optional[_Union[CommitProgress, _Mapping]] = ..., done: _Optional[_Union[CommitDone, _Mapping]] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class CommitProgress(_message.Message):
    __slots__ = ("stage", "done", "total")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done: int
    total: int
    def __init__(self, stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class CommitDone(_message.Message):
    __slots__ = ("load", "reports_json")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    REPORTS_JSON_FIELD_NUMBER: _ClassVar[int]
    load: Load
    reports_json: str
    def __init__(self, load: _Optional[_Union[Load, _Mapping]] = ..., reports_json: _Optional[str] = ...) -> None: ...

class AbortRequest(_message.Message):
    __slots__ = ("protocol", "load", "why")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    load: str
    why: str
    def __init__(self, protocol: _Optional[int] = ..., load: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("protocol", "load")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    load: str
    def __init__(self, protocol: _Optional[int] = ..., load: _Optional[str] = ...) -> None: ...
