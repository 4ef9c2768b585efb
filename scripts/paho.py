"""Runs one interoperability suite of Eclipse Paho: paho.py FOLDER SUITE PORT [TEST …]; prints each result and the count."""

import importlib
import logging
import sys
import unittest

folder, suite, port, *only = sys.argv[1:]
sys.path.insert(0, folder)
module = importlib.import_module(suite)

# What the suites set when they are run as programs, where they take no port.
prefix = "client_test5/" if suite == "client_test5" else ""
module.host, module.port, module.topic_prefix = "127.0.0.1", int(port), prefix
module.topics = [prefix + topic for topic in ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")]
module.wildtopics = [prefix + topic for topic in ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")]
module.nosubscribe_topics = ("test/nosubscribe",)
logging.getLogger().setLevel(logging.ERROR)


class Result(unittest.TextTestResult):
    """Counts what passed, which unittest does not."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


loader = unittest.defaultTestLoader
tests = loader.loadTestsFromNames(only, module) if only else loader.loadTestsFromModule(module)
result = unittest.TextTestRunner(verbosity=2, resultclass=Result, stream=sys.stdout).run(tests)
print(f"{suite}: {result.passed} of {result.testsRun} passed")
sys.exit(not result.wasSuccessful())
