"""What came of reading rules and gateways."""

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """A row that cannot be used."""

    table: str
    row: str
    column: str
    problem: str

    def __str__(self) -> str:
        return f"{self.table}, row {self.row}, column {self.column}: {self.problem}"


class PartitionSize(msgspec.Struct, frozen=True):
    """How much a partition holds."""

    partition: str
    rules: int
    gateways: int
    carriers: int
    bytes: int


class RouteReport(msgspec.Struct, frozen=True):
    """What came of a load."""

    loaded_at: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0
    partitions: list[PartitionSize] = []
    fault_count: int = 0
    faults: list[Fault] = []
    """The first thousand of them."""
