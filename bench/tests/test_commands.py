"""The commands: what they keep and what they remove, however they end."""

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
import unittest
from unittest import mock

import support

from comparison import Failure, command, system

compare, scenarios = support.command("compare"), support.command("scenarios")


class Commands(unittest.TestCase):
    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.data, self.json = os.path.join(self.directory, "data"), os.path.join(self.directory, "json")
        os.mkdir(self.data)
        self.said = self.enterContext(contextlib.redirect_stderr(io.StringIO()))
        self.enterContext(contextlib.redirect_stdout(io.StringIO()))
        for each in command.SIGNALS:
            self.addCleanup(signal.signal, each, signal.getsignal(each))

    def options(self, module, *more):
        return module.parse_options(["--binary", "/bin/true", "--directory", self.data, "--json", self.json, "--report", "-", *more])

    def compare(self, everything, publish=lambda *_: None, describe=lambda *_: {}):
        """Runs it, with measurements that `everything` makes up; returns its status."""
        options = self.options(compare)
        with (mock.patch.multiple(compare.system, find_tools=mock.DEFAULT, allow_many_files=mock.DEFAULT, describe=describe),
              mock.patch.object(compare.Run, "everything", everything), mock.patch.object(compare, "publish", publish)):
            return command.run("bench/compare", lambda: compare.compare(options))

    def saved(self):
        with open(self.json, encoding="utf-8") as file:
            return json.load(file)

    def test_data_is_removed_and_the_result_kept_when_a_signal_comes_while_it_is_removed(self):
        published = []
        with mock.patch.object(shutil, "rmtree", support.interrupt_once(shutil.rmtree)):
            status = self.compare(lambda run: run.measurements.append(support.measurement()), lambda *_: published.append(True))
        self.assertEqual((status, os.listdir(self.data), published), (130, [], [True]))
        self.assertEqual(len(self.saved()["measurements"]), 1)

    def test_what_was_measured_before_a_failure_is_kept(self):
        def everything(run):
            run.measurements.append(support.measurement())
            raise Failure("the disk is gone")

        self.assertEqual(self.compare(everything), 2)
        self.assertEqual((len(self.saved()["measurements"]), os.listdir(self.data)), (1, []))
        os.truncate(self.json, 0)
        self.assertEqual(self.compare(lambda _: os.kill(os.getpid(), signal.SIGINT)), 130)
        self.assertEqual(os.path.getsize(self.json), 0, "an earlier file is only replaced by something")

    def test_the_directory_is_removed_when_nothing_could_be_measured(self):
        self.assertEqual(self.compare(lambda _: None, describe=mock.Mock(side_effect=Failure("no kernel"))), 2)
        self.assertEqual(os.listdir(self.data), [])

    def test_signals_that_were_ignored_stay_so(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.assertEqual(command.run("x", lambda: signal.getsignal(signal.SIGHUP) != signal.SIG_IGN), 0)
        self.assertEqual(signal.getsignal(signal.SIGTERM), command.interrupted)

    def test_what_nginx_stored_is_removed_last(self):
        def stored():
            return sorted(os.listdir(self.data))

        for number, server in enumerate(("nginx", "ours", "nginx", "redis")):
            os.makedirs(os.path.join(self.data, f"put-{number}", server))
        os.makedirs(os.path.join(self.data, "get-4096", "ours"))
        for room, files, left, is_noted in ((lambda: 10, 0, ["get-4096", "put-0", "put-1", "put-2", "put-3"], False),
                                            (lambda: 10 if "put-1" not in stored() else 9, 0, ["get-4096", "put-0", "put-2", "put-3"], False),
                                            (lambda: 10 if "put-0" not in stored() else 9, 0, ["get-4096", "put-2"], True),
                                            (lambda: 10, 6, ["get-4096"], True)):
            with mock.patch.multiple(system, free_bytes=lambda _, room=room: room(), free_files=lambda _: 5):
                notes = system.make_room(self.data, 10, files)
            self.assertEqual((stored(), bool(notes)), (left, is_noted))

    def test_data_of_scenarios_is_removed_when_a_signal_comes_while_it_is_removed(self):
        def measure(*arguments):
            arguments[-1].append(tempfile.mkdtemp(dir=self.data))
            return {"result": {"measurements": []}}

        options = self.options(scenarios)
        with (mock.patch.multiple(scenarios.system, find_tools=mock.DEFAULT, allow_many_files=mock.DEFAULT),
              mock.patch.multiple(scenarios, check_room=mock.DEFAULT, publish=mock.DEFAULT, measure=measure),
              mock.patch.object(shutil, "rmtree", support.interrupt_once(shutil.rmtree))):
            status = command.run("bench/scenarios", lambda: scenarios.scenarios(options))
        self.assertEqual((status, os.listdir(self.data)), (130, []))

    def test_what_a_scenario_has_measured_is_kept_when_it_cannot_be_published(self):
        options = self.options(scenarios, "--only", "mixed")
        publish = mock.Mock(side_effect=Failure("the document is gone"))
        with (mock.patch.multiple(scenarios.system, find_tools=mock.DEFAULT, allow_many_files=mock.DEFAULT),
              mock.patch.multiple(scenarios, check_room=mock.DEFAULT, publish=publish, measure=lambda *_: {"result": "of mixed"})):
            status = command.run("bench/scenarios", lambda: scenarios.scenarios(options))
        self.assertEqual((status, self.saved()["scenarios"]), (2, {"mixed": {"result": "of mixed"}}))

    def test_one_connection_has_no_chart_and_is_refused_at_once(self):
        with self.assertRaises(SystemExit):
            self.options(compare, "--connections", "1")
        self.assertIn("--connections", self.said.getvalue())
        self.assertEqual(self.options(compare, "--connections", "2").connections, 2)
        self.assertEqual(self.options(scenarios, "--connections", "1").connections, 1)


if __name__ == "__main__":
    unittest.main()
