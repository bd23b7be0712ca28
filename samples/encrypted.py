"""What is stored is encrypted: nobody reads it in the file, in a backup or from the command line who has not the key.

    pip install 'replayflow[encryption]'
    python -m samples.encrypted [STORE]

Keys come from the environment here; a vault is as good, asked once, when the process begins. To change the key add a new one behind the old, and keep
the old one for as long as there are instances from its time. The command line and workers find the cipher by its name:

    export RECORDS_KEYS=2026:$(python -c 'import secrets; print(secrets.token_hex(32))')
    export REPLAYFLOW_CIPHER=samples.encrypted:cipher
    replayflow worker samples/encrypted.py:app --store encrypted.db
"""

import asyncio
import os
import secrets
import sys

from replayflow import AesGcmCipher, App, Client, Orchestration, OrchestrationContext, TaskHub

app = App()


def cipher() -> AesGcmCipher:
    """The keys of `$RECORDS_KEYS`, `ID:HEX ID:HEX ...`; the last one seals."""
    keys = os.environ["RECORDS_KEYS"].split()
    return AesGcmCipher({key_id: bytes.fromhex(key) for key_id, _, key in (text.partition(":") for text in keys)})


@app.activity
async def finding(patient: str) -> str:
    return f"{patient} is well"


@app.orchestrator
def examine(ctx: OrchestrationContext, patient: str) -> Orchestration[str]:
    return (yield from ctx.call_activity(finding, patient))


async def main(store: str = "encrypted.db") -> None:
    os.environ.setdefault("RECORDS_KEYS", f"only-for-today:{secrets.token_hex(32)}")
    async with TaskHub(store, app, cipher=cipher()) as hub:
        # The id is not encrypted: what it says should be no secret.
        examination = await hub.client.start(examine, "Ada Lovelace")
        print("with the key:   ", await examination.result(30))
    async with Client(store) as client:
        state = await client.get(examination.id).status()
        print("without the key:", state.input, state.output)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
