"""DVC, with a fake in place of Google: only the address of the API is another."""

import json
import os
import sys

import googleapiclient
import googleapiclient.discovery

ENDPOINT = os.environ["FAKE_DRIVE"] + "/"


def build(name, version, http=None, **_):
    folder = os.path.join(os.path.dirname(googleapiclient.__file__), "discovery_cache/documents")
    document = json.load(open(os.path.join(folder, "%s.%s.json" % (name, version))))
    document["rootUrl"] = document["baseUrl"] = ENDPOINT
    document.pop("mtlsRootUrl", None)
    return googleapiclient.discovery.build_from_document(document, http=http)


googleapiclient.discovery.build = build
# oauth2client asks the address in the key, which is the fake's.
from dvc.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
