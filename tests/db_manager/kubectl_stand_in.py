"""``kubectl`` for the commands of docs/platform.md: what needs no cluster is done by kubectl itself, the rest is noted.

``STAND_IN`` names a folder with ``settings.json``: the real kubectl, the URL and the CA of an issuer that has the
documents of Kubernetes and gives out tokens. Each call is a line of ``calls`` there; what was
applied lies in ``applied``.
"""

import json
import os
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

FOLDER = Path(os.environ["STAND_IN"])
SETTINGS = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    with (FOLDER / "calls").open("a", encoding="utf-8") as calls:
        calls.write(" ".join(arguments) + "\n")
    words = [word for word in arguments if not word.startswith("-")]
    options = dict(word.partition("=")[::2] for word in arguments if word.startswith("--"))
    namespace = arguments[arguments.index("-n") + 1] if "-n" in arguments else None
    words = [word for word in words if word != namespace]
    if "-k" in arguments:
        overlay = arguments[arguments.index("-k") + 1]
        rendered = kubectl("kustomize", overlay)
        if words[0] == "apply":
            (FOLDER / "applied" / f"{overlay.replace('/', '-')}.yaml").write_text(rendered, encoding="utf-8")
        return 1 if words[0] == "diff" else 0
    if words[:2] == ["create", "token"]:
        query = urllib.parse.urlencode({"audience": options["--audience"]})
        sys.stdout.write(ask(f"/token/{namespace}/{words[2]}?{query}") + "\n")
    elif words[0] == "create":
        kind, name = words[1], words[3] if words[1] == "secret" else words[2]
        made = kubectl(*arguments, "--dry-run=client", "-o", "json")
        (FOLDER / "applied" / f"{kind}-{namespace}-{name}.json").write_text(made, encoding="utf-8")
    elif words[0] == "get" and "--raw" in arguments:
        sys.stdout.write(ask(words[1]) + "\n")
    elif words[0] == "get" and "jsonpath" in arguments[-1]:
        sys.stdout.write("4")
    elif words[0] == "logs":
        sys.stdout.write((FOLDER / "log").read_text(encoding="utf-8") + "\n")
    elif words[0] not in {"rollout", "scale", "delete", "port-forward"}:
        sys.exit(f"what would a cluster answer to {arguments}?")
    return 0


def kubectl(*arguments: str) -> str:
    return subprocess.run([SETTINGS["kubectl"], *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def ask(path: str) -> str:
    context = ssl.create_default_context(cafile=SETTINGS["ca"])
    headers = {"Authorization": f"Bearer {SETTINGS['token']}"}
    request = urllib.request.Request(SETTINGS["url"] + path, headers=headers)  # noqa: S310  the issuer's own
    with urllib.request.urlopen(request, timeout=60, context=context) as response:  # noqa: S310  as above
        return str(response.read().decode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
