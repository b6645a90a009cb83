from qengine.transport.generated import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskInput(_message.Message):
    __slots__ = ("name", "parts", "columns", "types", "ranges", "margin_parts", "nan_columns", "line_column")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    MARGIN_PARTS_FIELD_NUMBER: _ClassVar[int]
    NAN_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    LINE_COLUMN_FIELD_NUMBER: _ClassVar[int]
    name: str
    parts: _containers.RepeatedCompositeFieldContainer[_common_pb2.PartRef]
    columns: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    ranges: _containers.RepeatedScalarFieldContainer[int]
    margin_parts: _containers.RepeatedCompositeFieldContainer[_common_pb2.PartRef]
    nan_columns: _containers.RepeatedScalarFieldContainer[str]
    line_column: str
    def __init__(self, name: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[_common_pb2.PartRef, _Mapping]]] = ..., columns: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., ranges: _Optional[_Iterable[int]] = ..., margin_parts: _Optional[_Iterable[_Union[_common_pb2.PartRef, _Mapping]]] = ..., nan_columns: _Optional[_Iterable[str]] = ..., line_column: _Optional[str] = ...) -> None: ...

class SkyJoin(_message.Message):
    __slots__ = ("name", "first", "second", "radius_deg", "comparison", "is_wide", "has_distance")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    RADIUS_DEG_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    IS_WIDE_FIELD_NUMBER: _ClassVar[int]
    HAS_DISTANCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    first: str
    second: str
    radius_deg: float
    comparison: str
    is_wide: bool
    has_distance: bool
    def __init__(self, name: _Optional[str] = ..., first: _Optional[str] = ..., second: _Optional[str] = ..., radius_deg: _Optional[float] = ..., comparison: _Optional[str] = ..., is_wide: _Optional[bool] = ..., has_distance: _Optional[bool] = ...) -> None: ...

class TaskLimits(_message.Message):
    __slots__ = ("deadline_s", "memory_bytes", "result_bytes", "hold_bytes")
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOLD_BYTES_FIELD_NUMBER: _ClassVar[int]
    deadline_s: float
    memory_bytes: int
    result_bytes: int
    hold_bytes: int
    def __init__(self, deadline_s: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., result_bytes: _Optional[int] = ..., hold_bytes: _Optional[int] = ...) -> None: ...

class RunRequest(_message.Message):
    __slots__ = ("protocol", "id", "sql", "inputs", "limits", "sky_joins", "partition", "is_scan")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SKY_JOINS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    IS_SCAN_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    id: _common_pb2.AttemptId
    sql: str
    inputs: _containers.RepeatedCompositeFieldContainer[TaskInput]
    limits: TaskLimits
    sky_joins: _containers.RepeatedCompositeFieldContainer[SkyJoin]
    partition: Partitioning
    is_scan: bool
    def __init__(self, protocol: _Optional[int] = ..., id: _Optional[_Union[_common_pb2.AttemptId, _Mapping]] = ..., sql: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[TaskInput, _Mapping]]] = ..., limits: _Optional[_Union[TaskLimits, _Mapping]] = ..., sky_joins: _Optional[_Iterable[_Union[SkyJoin, _Mapping]]] = ..., partition: _Optional[_Union[Partitioning, _Mapping]] = ..., is_scan: _Optional[bool] = ...) -> None: ...

class Partitioning(_message.Message):
    __slots__ = ("columns", "types", "count", "threshold_bytes")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_BYTES_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    count: int
    threshold_bytes: int
    def __init__(self, columns: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ..., threshold_bytes: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("id", "started", "progress", "batch", "finished", "failed")
    ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    id: _common_pb2.AttemptId
    started: Started
    progress: Progress
    batch: Batch
    finished: Finished
    failed: Failed
    def __init__(self, id: _Optional[_Union[_common_pb2.AttemptId, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., failed: _Optional[_Union[Failed, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Progress(_message.Message):
    __slots__ = ("fraction",)
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    def __init__(self, fraction: _Optional[float] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("arrow",)
    ARROW_FIELD_NUMBER: _ClassVar[int]
    arrow: bytes
    def __init__(self, arrow: _Optional[bytes] = ...) -> None: ...

class Partition(_message.Message):
    __slots__ = ("number", "name", "rows", "bytes")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    number: int
    name: str
    rows: int
    bytes: int
    def __init__(self, number: _Optional[int] = ..., name: _Optional[str] = ..., rows: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("rows", "result_bytes", "input_bytes", "elapsed_s", "cpu_s", "spool", "partitions")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RESULT_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    result_bytes: int
    input_bytes: int
    elapsed_s: float
    cpu_s: float
    spool: str
    partitions: _containers.RepeatedCompositeFieldContainer[Partition]
    def __init__(self, rows: _Optional[int] = ..., result_bytes: _Optional[int] = ..., input_bytes: _Optional[int] = ..., elapsed_s: _Optional[float] = ..., cpu_s: _Optional[float] = ..., spool: _Optional[str] = ..., partitions: _Optional[_Iterable[_Union[Partition, _Mapping]]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: _common_pb2.Error
    def __init__(self, error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("protocol", "spool", "skip_frames")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    SKIP_FRAMES_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    spool: str
    skip_frames: int
    def __init__(self, protocol: _Optional[int] = ..., spool: _Optional[str] = ..., skip_frames: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("protocol", "query", "name")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    query: str
    name: str
    def __init__(self, protocol: _Optional[int] = ..., query: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("arrow", "error")
    ARROW_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    arrow: bytes
    error: _common_pb2.Error
    def __init__(self, arrow: _Optional[bytes] = ..., error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("spool",)
    SPOOL_FIELD_NUMBER: _ClassVar[int]
    spool: str
    def __init__(self, spool: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("query",)
    QUERY_FIELD_NUMBER: _ClassVar[int]
    query: str
    def __init__(self, query: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("protocol", "query", "name", "digest", "data")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    query: str
    name: str
    digest: str
    data: bytes
    def __init__(self, protocol: _Optional[int] = ..., query: _Optional[str] = ..., name: _Optional[str] = ..., digest: _Optional[str] = ..., data: _Optional[bytes] = ...) -> None: ...

class PutReply(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: _common_pb2.Error
    def __init__(self, error: _Optional[_Union[_common_pb2.Error, _Mapping]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("worker", "protocol", "version", "slots", "running", "store", "incarnation", "ahead", "mark")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    worker: str
    protocol: int
    version: str
    slots: int
    running: _containers.RepeatedScalarFieldContainer[str]
    store: str
    incarnation: str
    ahead: int
    mark: str
    def __init__(self, worker: _Optional[str] = ..., protocol: _Optional[int] = ..., version: _Optional[str] = ..., slots: _Optional[int] = ..., running: _Optional[_Iterable[str]] = ..., store: _Optional[str] = ..., incarnation: _Optional[str] = ..., ahead: _Optional[int] = ..., mark: _Optional[str] = ...) -> None: ...
