"""A server that ends while it is measured, or a generator that cannot measure it, costs its round and no other."""

import os
import signal
import subprocess
import tempfile
import threading
import unittest
from types import SimpleNamespace
from unittest import mock

import support

from comparison import Failure, command, load, process, report
from scenes import mixed

compare = support.command("compare")


def lost_server(name="ours"):
    gone = mock.Mock(side_effect=Failure("/-/stats: Connection refused"))
    return SimpleNamespace(name=name, port=1, processes=lambda: [], stored=gone, stats=gone, settle=gone)


class LostServers(unittest.TestCase):
    def generator(self, output, status):
        """One that prints this."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        program = os.path.join(directory, "buddy-blocks")
        with open(program, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {status}\n")
        os.chmod(program, 0o700)
        return load.Generator(program, 64)

    def test_what_the_generator_says_instead_of_a_report_is_the_failure(self):
        for output, said in (("buddy-blocks: http://127.0.0.1:1: could not connect\nmore", "buddy-blocks: http://127.0.0.1:1: could not connect"),
                             ("", "nothing")):
            with self.assertRaises(Failure) as failure:
                self.generator(output, 1).run(lost_server())
            self.assertIn(said, str(failure.exception))
            self.assertNotIn("more", str(failure.exception))

    def test_what_the_generator_says_beside_a_report_is_the_failure(self):
        with self.assertRaises(Failure) as failure:
            self.generator('{\n "requests": 1\n}\nbuddy-blocks: names: No space left on device', 1).run(lost_server())
        self.assertEqual(str(failure.exception), "ours: buddy-blocks: names: No space left on device")
        self.assertEqual(self.generator('{\n "requests": 1\n}', 1).run(lost_server()), {"requests": 1})

    def test_what_cannot_be_measured_because_the_server_has_ended_is_a_failed_round(self):
        def measure():
            raise Failure("redis-benchmark ended with 1")

        server = lost_server()
        server.process = SimpleNamespace(poll=lambda: 1)
        lost = {**support.measurement(), **load.unless_lost(server, measure)}
        self.assertTrue(load.failed(lost))
        self.assertIn("lost process", report.progress(lost))
        server.process = SimpleNamespace(poll=lambda: None)
        self.assertRaises(Failure, load.unless_lost, server, measure)
        self.assertEqual(load.unless_lost(server, lambda: 1), 1)

    def test_a_round_of_put_whose_server_is_gone_has_failed(self):
        for used in (support.LOST, support.result()["server"]):
            found = load.errors(support.result(server=used), used, lost_server(), "PUT", 4096, 0)
            self.assertEqual(found, {"lost process": 1})

    def test_a_lost_round_is_shown_and_left_out(self):
        lost = support.measurement(cpu_us_per_request=None, errors={"lost process": 1})
        self.assertIn("ERRORS {'lost process': 1}", report.progress(lost))
        figures = compare.Figures([support.measurement(), lost], [])
        self.assertEqual(figures.values("PUT", 4096, "ours", 64, name="cpu_us_per_request"), [5.0])
        machine = {"rounds": 2, "seconds": 1, "command": "x", "date": "x", "processor": "x", "cores": 2, "memory_bytes": 1, "kernel": "x",
                   "file_system": "x", "congestion_control": "x", "buddy_blocks": "x", "commit": "x"}
        self.assertIn("lost process 1", report.markdown(figures, [], machine, []))

    def test_a_store_that_is_gone_after_its_round_does_not_end_the_comparison(self):
        run = mock.Mock()
        server = mock.Mock()
        server.stats.side_effect = [{"blocks": 0, "file_bytes": 0}, Failure("/-/stats: Connection refused")] * 2
        for errors, ends in (({"lost process": 1}, False), ({}, True)):
            run.generator.measure.return_value = support.measurement(errors=errors)
            if ends:
                with self.assertRaises(Failure):
                    compare.Run.measure_reusing(run, server, 4096, 1, 64)
            else:
                self.assertEqual(compare.Run.measure_reusing(run, server, 4096, 1, 64)["errors"], errors)

    def test_the_mix_ends_with_its_server_and_is_reported_without_the_last_slice(self):
        stats = {"blocks": 1000, "bytes_allocated": 1 << 30, "bytes_stored": 1 << 30, "bytes_free": 1 << 20, "file_bytes": 1 << 31,
                 "free_extents": [0] * 8}
        run = mock.MagicMock()
        run.options = SimpleNamespace(mixed_seconds=100, mixed_gib=2, connections=64)
        server = run.ours.return_value.__enter__.return_value
        gone = Failure("/-/stats: Connection refused")
        server.settle.side_effect = [stats, stats, gone]
        blocks = (2 << 30) // 4 // mixed.MEAN_EXTENT_BYTES
        good = {**stats, "blocks": blocks}
        server.stats.side_effect = [stats, stats, good, stats, gone, gone]
        operations = {name: {"requests": 1, "latency_us": support.result()["latency_us"]} for name in mixed.OPERATIONS}
        run.generator.run.side_effect = [support.result(), support.result(operations=operations), support.result(requests=7, server=support.LOST)]
        with mock.patch.object(mixed, "trim"):
            result = mixed.measure(run)
        self.assertEqual([each["errors"] for each in result["measurements"]], [{}, {"lost process": 1}])
        text, notes = mixed.section(result)
        self.assertIn("100 requests succeeded", text)
        self.assertEqual(len([note for note in notes if "lost process 1" in note]), 1)
        text, notes = mixed.section({**result, "measurements": result["measurements"][1:]})
        self.assertIn("no slice", text)


class Processes(unittest.TestCase):
    def test_what_a_dead_process_has_left_behind_is_ended(self):
        with tempfile.TemporaryFile("w+") as output:
            leader = process.start(["sh", "-c", "sleep 1000 & echo $!"], output)
            leader.wait()
            output.seek(0)
            child = int(output.read())
        process.stop(leader)
        with self.assertRaises(ProcessLookupError):
            os.kill(child, 0)
        process.stop(leader)

    def test_what_is_started_when_a_signal_comes_is_ended(self):
        for each in command.SIGNALS:
            self.addCleanup(signal.signal, each, signal.getsignal(each))
        signal.signal(signal.SIGINT, command.interrupted)
        started, popen = [], subprocess.Popen

        def interrupted(*arguments, **named):
            started.append(popen(*arguments, **named))
            signal.raise_signal(signal.SIGINT)
            return started[0]

        with mock.patch.object(subprocess, "Popen", interrupted), self.assertRaises(KeyboardInterrupt):
            process.start(["sleep", "1000"], subprocess.DEVNULL)
        self.assertEqual(started[0].poll(), -signal.SIGTERM)

    def test_a_signal_does_not_keep_a_process_from_being_stopped(self):
        for each in command.SIGNALS:
            self.addCleanup(signal.signal, each, signal.getsignal(each))
        signal.signal(signal.SIGINT, command.interrupted)
        slow = process.start(["sh", "-c", "trap 'sleep 1; exit' TERM; echo; while :; do sleep 0.05; done"], subprocess.PIPE)
        self.addCleanup(slow.stdout.close)
        slow.stdout.readline()
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with self.assertRaises(KeyboardInterrupt):
            process.stop(slow)
        self.assertEqual(slow.poll(), 0)


if __name__ == "__main__":
    unittest.main()
