#!/usr/bin/env python3
"""Packs tar files into an OCI image layout.

    pack.py --layer a.tar [--layer b.tar] [--cmd CMD] [--env K=V] [--user U] [--entrypoint E]
            [--workdir D] [--volume V] [--label K=V] [--expose PORT/PROTOCOL] [--compression gzip|none] --tag TAG LAYOUT

Written out here (and not left to umoci) because hostile and odd images need fields and archives
that a well-behaved tool refuses to write.
"""

import argparse
import gzip
import hashlib
import json
import os
import sys


def put(layout, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs", "sha256", digest), "wb") as f:
        f.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def layer(layout, path, compression):
    with open(path, "rb") as f:
        plain = f.read()
    diff_id = "sha256:" + hashlib.sha256(plain).hexdigest()
    if compression == "none":
        return diff_id, {"mediaType": "application/vnd.oci.image.layer.v1.tar", **put(layout, plain)}
    packed = gzip.compress(plain, compresslevel=1, mtime=0)
    return diff_id, {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **put(layout, packed)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--layer", action="append", default=[])
    p.add_argument("--cmd", action="append")
    p.add_argument("--entrypoint", action="append")
    p.add_argument("--env", action="append")
    p.add_argument("--user")
    p.add_argument("--workdir")
    p.add_argument("--volume", action="append")
    p.add_argument("--label", action="append", default=[])
    p.add_argument("--expose", action="append", default=[])
    p.add_argument("--stop-signal")
    p.add_argument("--compression", default="gzip")
    p.add_argument("--tag", default="latest")
    p.add_argument("layout")
    a = p.parse_args()
    os.makedirs(os.path.join(a.layout, "blobs", "sha256"))
    layers = [layer(a.layout, path, a.compression) for path in a.layer]
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] + (a.env or [])}
    for key, value in (("Cmd", a.cmd), ("Entrypoint", a.entrypoint), ("User", a.user), ("WorkingDir", a.workdir),
                       ("StopSignal", a.stop_signal)):
        if value is not None:
            config[key] = value
    if a.volume:
        config["Volumes"] = {v: {} for v in a.volume}
    if a.label:
        config["Labels"] = dict(label.split("=", 1) for label in a.label)
    if a.expose:
        config["ExposedPorts"] = {port: {} for port in a.expose}
    image = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [d for d, _ in layers]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "pack.py"} for _ in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(a.layout, json.dumps(image).encode())},
        "layers": [descriptor for _, descriptor in layers],
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": manifest["mediaType"],
            **put(a.layout, json.dumps(manifest).encode()),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": a.tag},
        }],
    }
    with open(os.path.join(a.layout, "oci-layout"), "w") as f:
        json.dump({"imageLayoutVersion": "1.0.0"}, f)
    with open(os.path.join(a.layout, "index.json"), "w") as f:
        json.dump(index, f)
    return 0


if __name__ == "__main__":
    sys.exit(main())
