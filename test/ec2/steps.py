"""A training whose every step depends on all steps before it, so that a model tells whether one was lost or done twice.

It keeps its state after every 20th. usage: steps.py STEPS SECONDS_PER_STEP
"""

import hashlib
import json
import os
import sys
import time

steps, seconds = int(sys.argv[1]), float(sys.argv[2])
number, state = 0, b"seed"
if os.environ.get("TRAINSPOT_RESUME") == "1":
    with open("state/step.json") as file:
        saved = json.load(file)
    number, state = saved["number"], bytes.fromhex(saved["state"])
print(f"at step {number}", flush=True)
os.makedirs("state", exist_ok=True)
os.makedirs("model", exist_ok=True)
while number < steps:
    time.sleep(seconds)
    number, state = number + 1, hashlib.sha256(state + number.to_bytes(4, "big")).digest()
    if number % 20 == 0:
        # Renamed, as nothing half written may be taken for a checkpoint.
        with open("state/next", "w") as file:
            json.dump({"number": number, "state": state.hex()}, file)
        os.replace("state/next", "state/step.json")
with open("model/m.bin", "wb") as file:
    file.write(b"".join(hashlib.sha256(state + part.to_bytes(4, "big")).digest() for part in range(10_000)))
with open("model/metrics.json", "w") as file:
    json.dump({"steps": number}, file)
