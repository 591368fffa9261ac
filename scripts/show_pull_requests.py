"""usage: show_pull_requests.py REPOSITORY_URL TOKEN — print the open pull requests with their comments."""

import json
import sys
from urllib.request import ProxyHandler, Request, build_opener

repository, token = sys.argv[1:]
# Not through a proxy that the environment names: the repository is on this machine.
web = build_opener(ProxyHandler({}))


def values(path):
    request = Request(f"{repository}/{path}", headers={"Authorization": f"Bearer {token}"})
    with web.open(request, timeout=10) as answer:
        return json.load(answer)["values"]


pull_requests = values("pullrequests")
if not pull_requests:
    sys.exit("error: there is no pull request")
for it in pull_requests:
    print(f"#{it['id']} {it['title']}: {it['source']['branch']['name']} → {it['destination']['branch']['name']}")
    for comment in values(f"pullrequests/{it['id']}/comments"):
        print(f"\n{comment['content']['raw']}")
