"""What is known of the standard library and of common packages: which names break which rule.

A name that ends in `.*` stands for all that is below it. `ANSWERS_TO_ARGUMENTS` are names that are harmless with so many arguments.
"""

from __future__ import annotations

CLOCKS = (
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter"),
    *("time.perf_counter_ns", "time.process_time", "time.process_time_ns", "time.thread_time", "time.localtime"),
    *("time.gmtime", "time.ctime", "time.asctime", "time.strftime", "datetime.datetime.now"),
    *("datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today", "django.utils.timezone.now"),
    *("pendulum.now", "arrow.now", "arrow.utcnow"),
)
CHANCES = ("random.*", "secrets.*", "os.urandom", "os.getrandom", "numpy.random.*", "builtins.hash", "builtins.id")
UUIDS = ("uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.uuid8", "uuid.getnode")
IO = (
    *("builtins.open", "builtins.input", "io.open", "os.open", "os.read", "os.write", "os.fdopen", "os.system"),
    *("os.popen", "os.listdir", "os.scandir", "os.walk", "os.stat", "os.lstat", "os.access", "os.remove"),
    *("os.unlink", "os.rename", "os.replace", "os.mkdir", "os.makedirs", "os.rmdir", "os.removedirs", "os.link"),
    *("os.symlink", "os.readlink", "os.chmod", "os.chown", "os.truncate", "os.utime", "os.kill", "os.fork"),
    *("os.path.exists", "os.path.lexists", "os.path.isfile", "os.path.isdir", "os.path.islink", "os.path.getsize"),
    *("os.path.getmtime", "os.path.getctime", "os.path.getatime", "os.path.realpath", "os.path.samefile"),
    *("pathlib.Path.cwd", "pathlib.Path.home", "glob.glob", "glob.iglob", "shutil.*", "tempfile.*", "fileinput.*"),
    *("subprocess.*", "socket.*", "ssl.*", "select.*", "http.client.*", "urllib.request.*", "ftplib.*"),
    *("smtplib.*", "imaplib.*", "poplib.*", "telnetlib.*", "xmlrpc.client.*", "webbrowser.*", "sqlite3.connect"),
    *("dbm.open", "shelve.open", "requests.*", "httpx.*", "urllib3.*", "aiohttp.*", "aiofiles.*", "aiosqlite.*"),
    *("psycopg.*", "psycopg2.*", "asyncpg.*", "pymysql.*", "MySQLdb.*", "redis.*", "pymongo.*", "boto3.*"),
    *("botocore.*", "google.cloud.*", "paramiko.*", "pika.*", "kafka.*", "confluent_kafka.*", "openai.*"),
    *("anthropic.*",),
)
ENVIRONMENT = (
    *("os.getenv", "os.putenv", "os.unsetenv", "os.getcwd", "os.chdir", "os.getpid", "os.getppid", "os.getlogin"),
    *("os.uname", "os.cpu_count", "os.getuid", "os.getloadavg", "os.path.expanduser", "os.path.expandvars"),
    *("os.path.abspath", "getpass.*", "platform.*", "locale.getlocale", "locale.setlocale", "sys.getsizeof"),
)
SLEEPS = ("time.sleep", "asyncio.sleep", "trio.sleep", "anyio.sleep", "gevent.sleep")
THREADS = (
    *("threading.*", "_thread.*", "multiprocessing.*", "concurrent.futures.*", "asyncio.*", "trio.*", "anyio.*"),
    *("gevent.*",),
)
HARMLESS = frozenset({"random.Random", "asyncio.iscoroutine", "asyncio.iscoroutinefunction", "secrets.compare_digest"})
"""Names below a `.*` that break no rule; a `random.Random()` without a seed does."""
_HARMLESS_ENDS = ("Error", "Exception", "Timeout", "Exit")
ANSWERS_TO_ARGUMENTS = {"time.localtime": 1, "time.gmtime": 1, "time.ctime": 1, "time.asctime": 1, "time.strftime": 2}
READ = {"os.environ": "RFL05", "os.environb": "RFL05", "sys.argv": "RFL05", "sys.stdin": "RFL04"}
"""What breaks a rule by being looked at."""

PATH_METHODS_ANYWHERE = frozenset({"read_text", "write_text", "read_bytes", "write_bytes"})
PATH_METHODS = PATH_METHODS_ANYWHERE | {
    *("open", "exists", "is_file", "is_dir", "is_symlink", "iterdir", "glob", "rglob", "stat", "lstat", "mkdir"),
    *("rmdir", "unlink", "rename", "replace", "touch", "chmod", "resolve", "absolute", "expanduser", "symlink_to"),
    *("owner",),
}

_FAMILIES = {
    "RFL01": CLOCKS,
    "RFL02": CHANCES,
    "RFL03": UUIDS,
    "RFL04": IO,
    "RFL05": ENVIRONMENT,
    "RFL06": SLEEPS,
    "RFL07": THREADS,
}
_EXACT = {name: code for code, names in _FAMILIES.items() for name in names if not name.endswith(".*")}
_BELOW = {name[:-2]: code for code, names in _FAMILIES.items() for name in names if name.endswith(".*")}


def broken_by(name: str, arguments: int) -> str | None:
    """The code of the rule that a call of the qualified name, with so many arguments, breaks."""
    if name in ANSWERS_TO_ARGUMENTS and arguments >= ANSWERS_TO_ARGUMENTS[name]:
        return None
    if name in HARMLESS:
        return "RFL02" if name == "random.Random" and not arguments else None
    exact = _EXACT.get(name)
    if exact is not None or name.endswith(_HARMLESS_ENDS):  # an error of a package is made by anybody
        return exact
    parts = name.split(".")
    above = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return next((_BELOW[prefix] for prefix in above if prefix in _BELOW), None)
