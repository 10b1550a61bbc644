"""Inboxes in buckets: any server that speaks S3, through s3fs.

Only objects directly below the prefix count, as in a drop folder: keys with a further slash are folders. An ETag identifies the
bytes of an object, which appears as a whole.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from aiobotocore.session import AioSession
from botocore import exceptions as boto
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from s3fs import S3FileSystem
from s3fs.core import S3_RETRYABLE_ERRORS

from mini_platform.config.faultpoints import failpoint
from mini_platform.config.sections import S3Settings
from mini_platform.storage.errors import ChangedError, GoneError, InboxError, ObjectError, TransientInboxError
from mini_platform.storage.remote import PAGE, REQUEST_SECONDS, SILENT_SECONDS, Inbox, RemoteObject, with_retries

DENIED = {
    "InvalidAccessKeyId": "the server does not know the access key: check {access_key}",
    "SignatureDoesNotMatch": "the secret key does not match the access key: check {secret_key}",
    "ExpiredToken": "the credentials have expired: renew {access_key}, {secret_key} and {session_token}",
    "ExpiredTokenException": "the credentials have expired: renew {access_key}, {secret_key} and {session_token}",
    "InvalidToken": "the server does not accept the session token: check {session_token}",
    "RequestTimeTooSkewed": "the clocks of the server and of this machine differ by too much",
    "NoSuchBucket": "there is no bucket {bucket}",
    "PermanentRedirect": "the bucket {bucket} is in another region: check {region} and {endpoint}",
    "AuthorizationHeaderMalformed": "the bucket {bucket} is in another region: check {region}",
    "AccessDenied": "the server denies access to {access_key}",
}
"""Code of an error -> why the inbox cannot be used, and the settings to check."""
BUSY = ("SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "500", "502", "503", "504")
CHANGED = ("PreconditionFailed", "412", "InvalidRange", "416")
ABSENT = ("NoSuchKey", "404")
UPLOAD_BYTES = 16 * 2**20
"""Size of the parts in which large files are sent."""
LARGEST_COPY = 5 * 2**30
"""Largest object that one request can copy."""


def filesystem(settings: S3Settings) -> S3FileSystem:
    """Return the S3 server of these settings; without keys, it uses those of the environment, as other AWS tools do."""
    config: dict[str, Any] = {
        "connect_timeout": SILENT_SECONDS,
        "read_timeout": SILENT_SECONDS,
        "retries": {"total_max_attempts": 1},  # Retries are done by `with_retries`.
        "max_pool_connections": 32,
        # Servers other than AWS do not support the newer checksums.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if settings.endpoint:
        config["s3"] = {"addressing_style": "path"}
    for name in ("botocore", "aiobotocore"):  # At the level DEBUG they log the session token.
        logging.getLogger(name).setLevel(logging.INFO)
    session = AioSession()
    # Times are not used, and parsing them took two thirds of the time of a listing.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    secret, token = settings.secret_key, settings.session_token
    server = S3FileSystem(
        session=session,
        key=settings.access_key,
        secret=secret.get_secret_value() if secret else None,
        token=token.get_secret_value() if token else None,
        endpoint_url=settings.endpoint,
        client_kwargs={"region_name": settings.region or "us-east-1"} if settings.endpoint or settings.region else {},
        config_kwargs=config,
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    server.retries = 1
    return server


class S3:
    """A prefix in a bucket."""

    appears_whole = True

    def __init__(self, inbox: Inbox) -> None:
        """Take an inbox without accessing it."""
        self._inbox = inbox
        self._bucket = inbox.host
        self._prefix = f"{inbox.path}/" if inbox.path else ""
        self._fs = filesystem(inbox.settings)

    def pages(self, after: bytes) -> Iterator[tuple[list[RemoteObject], bytes]]:
        """Yield pages of the objects after a name."""
        params: dict[str, Any] = {"StartAfter": self._prefix + after.decode()} if after else {}
        while True:
            response = with_retries(partial(self._list, params))
            listing = sorted(
                self._remote_object(item) for item in response.get("Contents", []) if item["Key"] != self._prefix
            )
            files = [file for _, file in listing]
            if not response.get("IsTruncated"):
                yield files, b""
                return
            folders = [item["Prefix"] for item in response.get("CommonPrefixes", [])]
            # A name after everything in a folder, as the folder was listed as one name.
            after_folders = [(folder + "\U0010ffff")[len(self._prefix) :].encode() for folder in folders]
            yield files, max([file.key for file in files] + after_folders)
            params = {"ContinuationToken": response["NextContinuationToken"]}

    def _list(self, params: dict[str, Any]) -> dict[str, Any]:
        response: dict[str, Any] = self._call(
            "list_objects_v2", Bucket=self._bucket, Prefix=self._prefix, Delimiter="/", MaxKeys=PAGE, **params
        )
        return response

    def _remote_object(self, item: dict[str, Any]) -> tuple[bytes, RemoteObject]:
        key = item["Key"][len(self._prefix) :].encode("utf-8", "surrogateescape")
        return key, RemoteObject(key, _signature(item["ETag"], item["Size"]), item["Size"])

    def read(self, file: RemoteObject, start: int, size: int) -> bytes:
        """Return a range of an object, if it still has its ETag."""

        async def get() -> bytes:
            byte_range = f"bytes={start}-{start + size - 1}"
            response = await self._fs._call_s3(
                "get_object", Range=byte_range, IfMatch=_etag(file), **self._location(file)
            )
            async with response["Body"] as body:
                _check(response["ETag"], file)  # Not every server supports conditions.
                return bytes(await body.read())

        return cast("bytes", self._sync(get))

    def move(self, file: RemoteObject, target: str) -> None:
        """Copy an object, if it still has its ETag, and remove it."""
        if file.size > LARGEST_COPY:
            raise ObjectError("it is larger than 5 GB, which one request cannot copy")
        source, place = self._location(file), {"Bucket": self._bucket, "Key": self._prefix + target}

        def copy() -> None:
            _check(self._call("head_object", **source)["ETag"], file)
            self._call("copy_object", CopySource=source, CopySourceIfMatch=_etag(file), **place)

        with_retries(copy)
        failpoint("inbox.copied")
        self.remove(file)

    def write(self, source: BinaryIO, target: str) -> None:
        """Put an object."""
        body = source.read()
        with_retries(lambda: self._call("put_object", Bucket=self._bucket, Key=self._prefix + target, Body=body))

    def remove(self, file: RemoteObject) -> None:
        """Remove an object, if it still has its ETag; it is also checked before, as some servers ignore the condition."""

        def delete() -> None:
            _check(self._call("head_object", **self._location(file))["ETag"], file)
            self._call("delete_object", IfMatch=_etag(file), **self._location(file))

        with_retries(delete)

    def find(self, name: str) -> RemoteObject:
        """Return the object with a name below the prefix, from a listing, as a failed HEAD request does not give the reason."""
        params = {"Bucket": self._bucket, "Prefix": self._prefix + name, "MaxKeys": 1}
        response = with_retries(lambda: self._call("list_objects_v2", **params))
        for item in response.get("Contents", []):
            if item["Key"] == params["Prefix"]:
                return self._remote_object(item)[1]
        raise GoneError("it no longer exists")

    def upload(self, path: Path, target: str) -> None:
        """Put a local file of any size below the prefix, in bounded memory."""
        place = f"{self._bucket}/{self._prefix}{target}"
        limits = {"chunksize": UPLOAD_BYTES, "max_concurrency": 2}
        with_retries(lambda: self._sync(lambda: self._fs._put_file(str(path), place, **limits), seconds=None))

    def close(self) -> None:
        """Close the connections."""
        if self._fs._s3 is not None:
            S3FileSystem.close_session(self._fs.loop, self._fs._s3creator)

    def _key(self, file: RemoteObject) -> str:
        return self._prefix + file.key.decode("utf-8", "surrogateescape")

    def _location(self, file: RemoteObject) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(file)}

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._sync(lambda: self._fs._call_s3(method, **arguments))

    def _sync(self, action: Any, seconds: float | None = REQUEST_SECONDS) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(action(), seconds)

        try:
            return sync(self._fs.loop, bounded)
        except ObjectError:
            raise
        except Exception as error:  # s3fs translates some errors into others; unknown ones are raised again.
            raise self._as_sentence(error) from error

    def _as_sentence(self, error: Exception) -> Exception:
        cause = error if isinstance(error, boto.ClientError) else error.__cause__
        if isinstance(cause, boto.ClientError):
            return self._error_of_code(str(cause.response["Error"].get("Code", "")), cause)
        where = self._inbox.settings.endpoint or "S3"
        if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
            names = f"{self._inbox.setting('access_key')} and {self._inbox.setting('secret_key')}"
            return InboxError(f"There are no credentials for {self._inbox.url}: set {names}.")
        if isinstance(error, boto.SSLError):
            return InboxError(f"{where} has no certificate that this machine trusts.")
        if isinstance(error, (boto.ConnectTimeoutError, boto.EndpointConnectionError)):
            return TransientInboxError(f"{where} cannot be reached.")
        if isinstance(error, (*S3_RETRYABLE_ERRORS, FSTimeoutError, TimeoutError, ConnectionError)):
            return TransientInboxError(
                f"The connection to {where} broke, or nothing was received for {SILENT_SECONDS:.0f} s."
            )
        if isinstance(error, (boto.BotoCoreError, ValueError)):
            return InboxError(f"{self._inbox.url} cannot be used: {str(error)[:300]}.")
        return error

    def _error_of_code(self, code: str, error: boto.ClientError) -> Exception:
        """Return the error for a code in the server's answer; an answer without a body only has `403`."""
        if code in CHANGED:
            return ChangedError("it changed since it was listed")
        if code in ABSENT:
            return GoneError("it no longer exists")
        if code in BUSY:
            return TransientInboxError(f"The server is busy: it reports {code}.")
        reason = DENIED.get("AccessDenied" if code in ("403", "Forbidden") else code)
        if reason is None:
            message = str(error.response["Error"].get("Message") or "")[:200]
            return InboxError(
                f"{self._inbox.url} cannot be used: the server reports {code}{message and f', {message!r}'}."
            )
        if reason is DENIED["AccessDenied"] and error.operation_name.endswith("Object"):
            return ObjectError(f"the server refuses {error.operation_name}")
        settings = {name: self._inbox.setting(name) for name in S3Settings.model_fields}
        return InboxError(f"{self._inbox.url} cannot be used: {reason.format(bucket=self._bucket, **settings)}.")


def _signature(etag: str, size: int) -> str:
    return f"{etag.strip(chr(34))}:{size}"


def _etag(file: RemoteObject) -> str:
    return f'"{file.signature.rpartition(":")[0]}"'


def _check(etag: str, file: RemoteObject) -> None:
    if _signature(etag, file.size) != file.signature:
        raise ChangedError("it changed since it was listed")
