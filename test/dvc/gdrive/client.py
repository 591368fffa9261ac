"""Google's own client at the fake: what it does at Drive has to do the same here."""

import hashlib
import io
import json
import os
import sys

import googleapiclient
from google.oauth2 import service_account
from googleapiclient.discovery import build_from_document
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseDownload, MediaIoBaseUpload

endpoint, root = sys.argv[1:]
path = os.path.join(os.path.dirname(googleapiclient.__file__), "discovery_cache/documents/drive.v3.json")
document = json.load(open(path))
document["rootUrl"] = document["baseUrl"] = endpoint + "/"
document.pop("mtlsRootUrl", None)
credentials = service_account.Credentials.from_service_account_info(
    json.loads(os.environ["GDRIVE_CREDENTIALS_DATA"]), scopes=["https://www.googleapis.com/auth/drive"]
)
files = build_from_document(document, credentials=credentials).files()
DRIVES = {"supportsAllDrives": True}
FOLDER = "application/vnd.google-apps.folder"

drive = files.get(fileId=root, fields="driveId", **DRIVES).execute()["driveId"]


def named(query):
    found, token = [], None
    while True:
        page = files.list(
            q=query, corpora="drive", driveId=drive, includeItemsFromAllDrives=True, pageToken=token,
            fields="nextPageToken,files(id,name,size,md5Checksum,parents)", **DRIVES,
        ).execute()
        found += page["files"]
        token = page.get("nextPageToken")
        if not token:
            return found


def folder(name, parent):
    body = {"name": name, "mimeType": FOLDER, "parents": [parent]}
    return files.create(body=body, fields="id", **DRIVES).execute()["id"]


def upload(name, parent, content, resumable):
    media = MediaIoBaseUpload(
        io.BytesIO(content), "application/octet-stream", chunksize=256 << 10, resumable=resumable
    )
    request = files.create(
        body={"name": name, "parents": [parent]}, media_body=media, fields="id,size,md5Checksum", **DRIVES
    )
    if not resumable:
        return request.execute()
    answer = None
    while answer is None:
        _, answer = request.next_chunk()
    return answer


# Names are no keys.
twins = [folder("it's \\ twice", root) for _ in range(2)]
assert len(set(twins)) == 2
query = "trashed = false and name = 'it\\'s \\\\ twice' and '%s' in parents" % root
assert {file["id"] for file in named(query)} == set(twins)

contents = [b"", b"little", bytes(range(256)) * 4096, b"x" * ((1 << 20) + 1)]
for resumable in (False, True):
    for number, content in enumerate(contents):
        if resumable and not content:
            continue
        told = upload("%d-%s" % (number, resumable), twins[0], content, resumable)
        assert told["md5Checksum"] == hashlib.md5(content).hexdigest() and told["size"] == str(len(content)), told
        into = io.BytesIO()
        download = MediaIoBaseDownload(into, files.get_media(fileId=told["id"], **DRIVES))
        done = False
        while not done:
            _, done = download.next_chunk()
        assert into.getvalue() == content

# More than a page of them.
for number in range(20):
    upload("n%d" % number, twins[1], b"content", False)
assert len(named("trashed = false and '%s' in parents" % twins[1])) == 20
assert len(named("trashed = false and ('%s' in parents or '%s' in parents)" % tuple(twins))) == 27

(gone,) = named("name = 'N7' and '%s' in parents" % twins[1])
files.update(fileId=gone["id"], body={"trashed": True}, fields="id", **DRIVES).execute()
assert len(named("trashed = false and '%s' in parents" % twins[1])) == 19

for bad in (lambda: files.get(fileId="no-such-file", **DRIVES).execute(), lambda: files.get(fileId=root).execute()):
    try:
        bad()
        raise SystemExit("a file that is not to be seen was found")
    except HttpError as error:
        assert error.status_code == 404 and error.error_details[0]["reason"] == "notFound", error
print("fine")
