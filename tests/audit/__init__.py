"""What users get along with replayflow: few packages, under free licences, unchanged as they were installed, without known vulnerabilities.

`python -m tests.audit` asks an advisory service for the last of these. The rest needs no network, and is a part of the suite.
"""
