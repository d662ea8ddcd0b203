"""The tables that are read, in OpenSIPS's names and types; `docs/provisioning.md` says what they mean."""

from sqlalchemy import BigInteger, Column, DateTime, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()


def _text(name: str, length: int, default: str | None = None) -> Column[str]:
    return Column(name, String(length), nullable=default is None, server_default=default)


def _number(name: str, default: int | None = 0) -> Column[int]:
    return Column(name, Integer, nullable=default is None, server_default=None if default is None else str(default))


gateways = Table(
    "dr_gateways",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("gwid", String(64), nullable=False),
    _number("type"),
    Column("address", String(128), nullable=False),
    _number("strip"),
    _text("pri_prefix", 16),
    _text("attrs", 255),
    _number("probe_mode"),
    _number("state"),
    _text("socket", 128),
    _text("description", 128),
    _number("max_calls"),
    _number("calls_per_second"),
    UniqueConstraint("gwid", name="dr_gw_idx"),
)
carriers = Table(
    "dr_carriers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("carrierid", String(64), nullable=False),
    Column("gwlist", String(255), nullable=False),
    _number("flags"),
    _text("sort_alg", 1, "N"),
    _number("state"),
    _text("attrs", 255),
    _text("description", 128),
    _number("max_calls"),
    _number("calls_per_second"),
    UniqueConstraint("carrierid", name="dr_carrier_idx"),
)
rules = Table(
    "dr_rules",
    metadata,
    Column("ruleid", Integer, primary_key=True),
    Column("groupid", String(255), nullable=False),
    Column("prefix", String(64), nullable=False),
    _text("timerec", 255),
    _number("priority"),
    _text("routeid", 255),
    _text("gwlist", 255),
    _text("sort_alg", 1, "N"),
    _number("sort_profile", None),
    _text("attrs", 255),
    _text("description", 128),
)
profiles = Table(
    "qr_profiles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("profile_name", String(64), nullable=False),
    *(
        Column(f"{level}_{what}_{figure}", Float, nullable=False, server_default="-1" if what == "threshold" else penalty)
        for figure in ("asr", "ccr", "pdd", "ast", "acd")
        for what in ("threshold", "penalty")
        for level, penalty in (("warn", "0.5"), ("crit", "0.05"))
    ),
)
groups = Table(
    "dr_groups",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(64), nullable=False),
    _text("domain", 128),
    _number("groupid"),
    _text("description", 128),
)
dialplan = Table(
    "dialplan",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dpid", Integer, nullable=False),
    _number("pr"),
    Column("match_op", Integer, nullable=False),
    Column("match_exp", String(64), nullable=False),
    _number("match_flags"),
    _text("subst_exp", 64),
    _text("repl_exp", 32),
    _text("timerec", 255),
    _number("disabled"),
    _text("attrs", 255),
)
dispatcher = Table(
    "dispatcher",
    metadata,
    Column("id", Integer, primary_key=True),
    _number("setid"),
    Column("destination", String(192), nullable=False),
    _text("socket", 128),
    _number("state"),
    _number("probe_mode"),
    _text("weight", 64, "1"),
    _number("priority"),
    _text("attrs", 128),
    _text("description", 64),
)
load_balancer = Table(
    "load_balancer",
    metadata,
    Column("id", Integer, primary_key=True),
    _number("group_id"),
    Column("dst_uri", String(128), nullable=False),
    Column("resources", String(255), nullable=False),
    _number("probe_mode"),
    _text("attrs", 255),
    _text("description", 128),
)
address = Table(
    "address",
    metadata,
    Column("id", Integer, primary_key=True),
    _number("grp"),
    Column("ip", String(50), nullable=False),
    _number("mask", 32),
    _number("port"),
    _text("proto", 4, "any"),
    _text("pattern", 64),
    _text("context_info", 32),
)
subscriber = Table(
    "subscriber",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("username", 64, ""),
    _text("domain", 64, ""),
    _text("password", 64, ""),
    _text("ha1", 64, ""),
    _text("ha1_sha256", 64, ""),
    _text("ha1_sha512t256", 64, ""),
    UniqueConstraint("username", "domain", name="account_idx"),
)
location = Table(
    "location",
    metadata,
    Column("contact_id", BigInteger, primary_key=True, autoincrement=False),
    _text("username", 64, ""),
    _text("domain", 64),
    Column("contact", Text, nullable=False),
    _text("received", 255),
    _text("path", 255),
    Column("expires", BigInteger, nullable=False),
    Column("q", Float, nullable=False, server_default="1.0"),
    _text("callid", 255, "Default-Call-ID"),
    Column("cseq", BigInteger, nullable=False, server_default="13"),
    Column("last_modified", DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
    _number("flags"),
    _text("cflags", 255),
    _text("user_agent", 255, ""),
    _text("socket", 64),
    _number("methods", None),
    _text("sip_instance", 255),
    Column("kv_store", Text),
    _text("attr", 255),
)
usr_preferences = Table(
    "usr_preferences",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("uuid", 64, ""),
    _text("username", 64, "0"),
    _text("domain", 64, ""),
    _text("attribute", 32, ""),
    _number("type"),
    _text("value", 128, ""),
    Column("last_modified", DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
    Index("ua_idx", "username", "domain", "attribute"),
)
uri = Table(
    "uri",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("username", 64, ""),
    _text("domain", 64, ""),
    _text("uri_user", 64, ""),
    Column("last_modified", DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
    UniqueConstraint("username", "domain", "uri_user", name="account_uri_idx"),
)
aliases = Table(
    "dbaliases",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("alias_username", 64, ""),
    _text("alias_domain", 64, ""),
    _text("username", 64, ""),
    _text("domain", 64, ""),
    UniqueConstraint("alias_username", "alias_domain", name="alias_idx"),
    Index("target_idx", "username", "domain"),
)
limits = Table(
    "edgeproxy_limits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("limit_name", String(64), nullable=False),
    Column("limit_key", String(255), nullable=False),
    Column("most", BigInteger, nullable=False),
    UniqueConstraint("limit_name", "limit_key", name="limit_key_idx"),
)
fraud = Table(
    "fraud_detection",
    metadata,
    Column("ruleid", Integer, primary_key=True),
    Column("profileid", Integer, nullable=False),
    Column("prefix", String(64), nullable=False),
    Column("start_hour", String(5), nullable=False, server_default="00:00"),
    Column("end_hour", String(5), nullable=False, server_default="23:59"),
    Column("daysoftheweek", String(64), nullable=False, server_default="Mon-Sun"),
    *(
        _number(f"{figure}_{level}")
        for figure in ("cpm", "call_duration", "total_calls", "concurrent_calls", "sequential_calls")
        for level in ("warning", "critical")
    ),
)
domain = Table(
    "domain",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("domain", 64, ""),
    _text("attrs", 255),
    _number("accept_subdomain"),
    Column("last_modified", DateTime, nullable=False, server_default="1900-01-01 00:00:01"),
    UniqueConstraint("domain", name="domain_idx"),
)
partitions = Table(
    "dr_partitions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("partition_name", String(255), nullable=False),
    Column("db_url", String(255), nullable=False),
    _text("drd_table", 255),
    _text("drr_table", 255),
    _text("drg_table", 255),
    _text("drc_table", 255),
)
