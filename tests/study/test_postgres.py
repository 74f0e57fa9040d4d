"""Studies in a PostgreSQL server that the tests start themselves."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

import studies
from finetune_lm import UserError
from finetune_lm.study import search, workers
from finetune_lm.study.storage import storage_place
from ports import free_port
from studies import data_args, run_study, start, study_args, trials_of, wait_for
from study_processes import RESULTS, command, results_of, survive_a_kill

BINARIES = [
    shutil.which("initdb"),
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))),
]
OWNER = "postgres"


def reason_to_skip():
    if not any(BINARIES):
        return "PostgreSQL is not installed: apt-get install postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "its driver is not installed: pip install 'finetune-lm[postgres]'"
    if os.geteuid() == 0 and not (has_owner() and shutil.which("setpriv")):
        return "PostgreSQL does not run as root, and there is no user postgres to run it as"
    return None


def has_owner():
    try:
        pwd.getpwnam(OWNER)
    except KeyError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(reason_to_skip() is not None, reason=str(reason_to_skip())),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of a server with an empty database, which asks for no password."""
    initdb = Path(next(filter(None, BINARIES))).resolve()
    # Not below pytest's own directory, into which only its user can look.
    directory = Path(tempfile.mkdtemp(prefix="finetune_lm_postgres_"))
    as_owner = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam(OWNER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
        as_owner = ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups"]
    port = free_port()

    def run(*command):
        subprocess.run(
            [*as_owner, *command], cwd=directory, check=True, capture_output=True, text=True
        )

    data = directory / "data"
    run(str(initdb), "-D", str(data), "-U", "me", "--auth=trust", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {directory}"
    control = str(initdb.with_name("pg_ctl"))
    log = str(directory / "log")
    run(control, "-D", str(data), "-o", options, "-l", log, "-w", "start")
    try:
        yield f"postgresql://me@127.0.0.1:{port}/postgres"
    finally:
        run(control, "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(directory)


def test_two_processes_at_one_database_and_one_is_killed(model, tmp_path, server):
    """Each writes into a directory of its own, and all into one study."""
    argv = command(
        *(model, tmp_path, "--study_kwargs.storage", server),
        *("--study_kwargs.study_name", "killed"),
    )

    def find_results():
        # The table of the last to end, who knows of all.
        tables = tmp_path.glob(f"outputs/teach/*/*/{RESULTS}")
        return results_of(max(tables, key=lambda path: path.stat().st_mtime_ns).parent)

    survive_a_kill(argv, tmp_path, n_others=1, max_trials=3, find_results=find_results)
    assert len(list(tmp_path.glob("outputs/teach/*/*"))) == 3
    assert len(list(tmp_path.glob("outputs/teach/*/*/config.txt"))) == 3


def test_a_process_that_is_not_heard_of_any_more(model, tmp_path, server, monkeypatch):
    """On another machine, whose processes cannot be looked at: the database notices."""
    import psycopg

    name = "silent"
    storage = {
        "storage": optuna.storages.RDBStorage,
        "storage_kwargs": {
            "url": server.replace("postgresql://", "postgresql+psycopg://"),
            "heartbeat_interval": 1,
            "grace_period": 3,
        },
        "study_name": name,
        "load_if_exists": True,
    }
    kwargs = [
        *("--study_kwargs.storage", "optuna.storages.RDBStorage"),
        *("--study_kwargs.storage_kwargs.url", storage["storage_kwargs"]["url"]),
        *("--study_kwargs.storage_kwargs.heartbeat_interval", 1),
        *("--study_kwargs.storage_kwargs.grace_period", 3),
        *("--study_kwargs.study_name", name),
    ]
    marker = tmp_path / "hangs"
    hanging = start(*command(model, tmp_path, *kwargs), cwd=tmp_path, HANG=str(marker))
    wait_for(marker, hanging)
    with psycopg.connect(server, autocommit=True) as connection:
        while not connection.execute(
            "SELECT * FROM trial_heartbeats NATURAL JOIN trials NATURAL JOIN studies "
            "WHERE study_name = %s",
            [name],
        ).fetchall():
            time.sleep(0.02)
    hanging.send_signal(signal.SIGKILL)
    hanging.communicate()
    time.sleep(4)  # longer than what is granted

    monkeypatch.setattr(workers.Worker, "is_gone", lambda self, *_: None)
    monkeypatch.setattr(search, "save_plots", lambda *_: None)
    result = run_study(
        model,
        data_args(tmp_path, per_device_train_batch_size=32),
        study_args(
            2, study_kwargs={**storage, "pruner": optuna.pruners.PatientPruner}, params=studies.LR
        ),
        model_pre_train_step_callbacks=[studies.HangHere],
    )
    assert [trial.state.name for trial in trials_of(result)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert result.trials["reason"][0] == "its process no longer reported"
    assert result.trials["repeats"].dropna().tolist() == [0]
    assert result.trials["lr"][1] == result.trials["lr"][0]


def test_processes_that_come_to_an_empty_database_at_the_same_time(server):
    """Each would make the tables."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    url = server.replace("/postgres", "/fresh")
    with ThreadPoolExecutor(8) as pool:
        places = [storage_place({"storage": url}, Path("x")) for _ in range(8)]
        storages = list(pool.map(lambda place: place.open(), places))
    study = optuna.create_study(storage=storages[0], study_name="s")
    study.tell(study.ask(), 1.0)
    for storage in storages:
        assert len(optuna.load_study(study_name="s", storage=storage).trials) == 1
        storage._backend.engine.dispose()


def test_a_server_that_is_not_there(server):
    port = int(server.rpartition(":")[2].partition("/")[0])
    url = server.replace(f":{port}/", f":{free_port()}/").replace("me@", "me:secret@")
    with pytest.raises(UserError, match=r"postgresql\+psycopg://me@.* cannot be opened"):
        storage_place({"storage": url}, Path("x")).open()


def test_a_database_that_is_not_there(server):
    url = server.replace("/postgres", "/nowhere")
    with pytest.raises(UserError, match='database "nowhere" does not exist'):
        storage_place({"storage": url}, Path("x")).open()
