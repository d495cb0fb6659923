"""What a report claims: which program was measured, and that what was answered is there."""

import contextlib
import os
import subprocess
import tempfile
import threading
import time
import unittest
from types import SimpleNamespace
from unittest import mock

import support

from comparison import Failure, disk, load, process, report, system
from scenes import stages

compare, scenarios = support.command("compare"), support.command("scenarios")


class Program(unittest.TestCase):
    """Which one it was."""

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.git("init", "--quiet")
        self.commit("first")
        self.enterContext(mock.patch.object(system, "REPOSITORY", self.directory))
        self.enterContext(mock.patch.object(system, "version", return_value="1.0"))

    def git(self, *arguments):
        return subprocess.run(["git", "-C", self.directory, "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments],
                              check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message):
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "--short=12", "HEAD")

    def test_a_program_that_was_given_is_of_no_known_commit(self):
        program = system.program("/bin/true")
        machine = system.describe({}, program, self.directory, "bench/compare")
        self.assertIn("unknown commit", machine["commit"])
        self.assertNotIn(self.git("rev-parse", "--short=12", "HEAD"), machine["commit"])
        for module, line in ((compare, compare.command_line), (scenarios, lambda options: scenarios.command_line(stages, options))):
            options = module.parse_options(["--binary", "/bin/true", "--directory", self.directory, "--report", "-"])
            self.assertIn("--binary", line(options))
            self.assertNotIn("/bin/true", line(options), "without names of files")
            built = module.parse_options(["--directory", self.directory, "--report", "-"])
            self.assertNotIn("--binary", line(built))

    def test_the_commit_is_that_of_the_build(self):
        first = self.git("rev-parse", "--short=12", "HEAD")
        with mock.patch.object(system, "build", return_value="/bin/true"):
            program = system.program(None)
        later = self.commit("while it was measured")
        machine = system.describe({}, program, self.directory, "bench/compare")
        self.assertEqual(machine["commit"], first)
        self.assertNotEqual(first, later)

    def test_the_python_that_lacks_a_module_is_named(self):
        with mock.patch.object(os, "geteuid", return_value=1), self.assertRaises(Failure) as failure:
            system.find_tools((), modules=("no_such_module",))
        self.assertIn(system.sys.executable, str(failure.exception))


class Promises(unittest.TestCase):
    def test_blocks_of_the_warm_up_do_not_stand_for_lost_ones(self):
        result = support.result(requests=100, stored=120)
        used = result["server"]
        for there, missing in ((120, {}), (119, {"missing": 1}), (100, {"missing": 20})):
            server = SimpleNamespace(name="ours", stored=lambda there=there: 7 + there)
            self.assertEqual(load.errors(result, used, server, "PUT", 4096, 7), missing)

    def test_what_redis_appended_before_does_not_stand_for_lost_requests(self):
        log = [0]
        size, kept = 4096, [1.0, 1.0]
        server = SimpleNamespace(port=1, process=SimpleNamespace(pid=os.getpid()), appended_bytes=lambda: log[0])

        def run(command, *_):
            log[0] += int(int(command[command.index("-n") + 1]) * size * kept.pop(0))
            return '"test","rps","p50_latency_ms","p99_latency_ms","max_latency_ms"\n"SET","10","1","1","1"\n'

        with mock.patch.object(process, "run", run):
            self.assertEqual(load.measure_redis("redis-benchmark", server, size, 1, 64, 1000)["errors"], {})
            kept[:] = [1.0, 0.9]
            self.assertEqual(load.measure_redis("redis-benchmark", server, size, 1, 64, 1000)["errors"], {"missing": load.CALIBRATION_REQUESTS})

    def test_a_round_without_requests_is_not_a_lost_server(self):
        used = {"cpu_us_per_request": None, "busy": 0.5, "memory_bytes": 1}
        self.assertEqual(load.said_errors(support.result(requests=0, server=used), used), {})


class Checkpoints(unittest.TestCase):
    def test_how_many_a_round_held_is_in_the_table(self):
        rounds = [support.measurement(checkpoints=count) for count in (3, 5, 4)]
        nginx = support.measurement(server="nginx")
        table = report.usage_table(compare.Figures([*rounds, nginx], []), [("PUT", 4096, 64)]).splitlines()
        column = table[0].split("|").index(" checkpoints ")
        self.assertEqual(table[2].split("|")[column].strip(), "4")
        older = report.usage_table(compare.Figures([support.measurement(), nginx], []), [("PUT", 4096, 64)])
        self.assertEqual(older.splitlines()[2].split("|")[column].strip(), "–", "a file of an earlier version has none")

    def test_they_are_counted_where_blocks_are_stored(self):
        server = mock.Mock()
        server.name, server.stats.side_effect = "ours", [{"checkpoints": 2}, {"checkpoints": 7}]
        with load.counted_checkpoints(server, "PUT") as counted:
            pass
        self.assertEqual(counted, {"checkpoints": 5})
        server.stats.side_effect = [{"checkpoints": 2}, Failure("gone")]
        with load.counted_checkpoints(server, "PUT") as counted:
            pass
        self.assertEqual(counted, {"checkpoints": None})
        with load.counted_checkpoints(server, "GET") as counted:
            pass
        self.assertEqual(counted, {})


class Interruptions(unittest.TestCase):
    def test_what_fio_says_is_not_replaced_by_a_file_that_is_not_there(self):
        directory = self.enterContext(tempfile.TemporaryDirectory())
        test = next(test for test in disk.TESTS if test.new)
        for failure in (Failure("fio ended with 1"), KeyboardInterrupt()):
            with mock.patch.object(disk, "run", side_effect=failure), self.assertRaises(type(failure)):
                disk.Disk.write(SimpleNamespace(fio="fio", path=os.path.join(directory, "data")), "psync", test)

    def recorder(self, delay_s):
        """One whose perf sleeps for a long time; and a file that is there when it runs."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        program, runs = os.path.join(directory, "perf"), os.path.join(directory, "runs")
        with open(program, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\ntouch {runs}\nexec sleep 1000\n")
        os.chmod(program, 0o700)
        return stages.Recorder(program, os.path.join(directory, "samples"), delay_s, 1000), runs

    def interrupted(self, recorder, until):
        """Ctrl-C within a `with`, which must end: a thread looks after that."""
        ended = threading.Event()

        def work():
            with contextlib.suppress(KeyboardInterrupt), recorder:
                while not until():
                    time.sleep(0.01)
                raise KeyboardInterrupt
            ended.set()

        threading.Thread(target=work, daemon=True).start()
        self.assertTrue(ended.wait(60), "it waits for perf")

    def test_samples_are_not_waited_for_after_an_interruption(self):
        recorder, runs = self.recorder(0)
        self.interrupted(recorder, lambda: os.path.exists(runs))
        recorder, runs = self.recorder(1000)
        self.interrupted(recorder, lambda: True)
        self.assertFalse(os.path.exists(runs))


if __name__ == "__main__":
    unittest.main()
