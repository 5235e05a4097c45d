"""Runs the cases with podman and records its answers; started by tests/podman/record inside its root."""

import glob
import json
import os
import shutil
import subprocess
import sys
import tomllib

CASES = "/bench/cases"
OUT = "/bench/user"
IMAGES = {"busybox": "docker.io/library/busybox:latest", "app": "docker.io/library/app:latest"}
LIMIT = 120  # seconds a case may take


def podman(*args, check=True):
    done = subprocess.run(["podman", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"podman {' '.join(args)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def steps_of(case):
    return [s if isinstance(s, str) else s["run"] for s in case["steps"]]


def clear():
    podman("unpause", "--all", check=False)
    podman("rm", "--force", "--all", "--time", "0")
    podman("volume", "rm", "--force", "--all")
    for log in glob.glob(f"/run/user/{os.getuid()}/libpod/tmp/events/*"):
        os.unlink(log)
    for line in podman("images", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").splitlines():
        ident, name = line.split(" ", 1)
        if name not in IMAGES.values():
            podman("rmi", "--force", ident if "<none>" in name else name)


def play(case):
    directory = "/tmp/case"
    shutil.rmtree(directory, ignore_errors=True)
    home = f"{directory}/home"
    os.makedirs(home)
    for i, step in enumerate(steps_of(case)):
        with open(f"{directory}/{i:02}.step", "w") as f:
            f.write(step + "\n")
    env = {**os.environ, "ENGINE": "podman", "IMAGE": "busybox", "APP": "app", "HERE": "/bench"}
    try:
        subprocess.run(["sh", "/bench/drive", directory], cwd=home, env=env, stdin=subprocess.DEVNULL,
                       timeout=LIMIT, check=True)
    except subprocess.SubprocessError as e:
        print(f"{case['name']}: {e}", file=sys.stderr)
        return None
    finally:
        clear()
    steps = []
    for i, step in enumerate(steps_of(case)):
        answer = {"run": step}
        for part in ("code", "out", "err"):
            with open(f"{directory}/{i:02}.{part}", errors="replace", newline="") as f:
                answer[part] = f.read()
        answer["code"] = int(answer["code"])
        steps.append(answer)
    return steps


def main():
    every = "--all" in sys.argv
    wanted = {a for a in sys.argv[1:] if not a.startswith("--")}
    version = None
    failed = done = 0
    for path in sorted(glob.glob(CASES + "/*.toml")):
        with open(path, "rb") as f:
            cases = tomllib.load(f)["case"]
        recorded = path.removesuffix(".toml") + ".json"
        old = {}
        if os.path.exists(recorded):
            with open(recorded) as f:
                old = json.load(f)["cases"]
        new = {}
        for case in cases:
            name = case["name"]
            kept = old.get(name)
            fresh = kept and [s["run"] for s in kept] == steps_of(case)
            if fresh and not every and name not in wanted or wanted and name not in wanted:
                if kept:
                    new[name] = kept
                continue
            if version is None:
                version = podman("--version").strip()
                for short, full in IMAGES.items():
                    ident = podman("pull", "--quiet", f"oci:/bench/images/{short}.oci:latest").split()[-1]
                    podman("tag", ident, full)
                    podman("untag", ident, *[n for n in json.loads(podman("image", "inspect", ident))[0]["RepoTags"]
                                             if n != full])
            answers = play(case)
            if answers is None:
                failed += 1
                continue
            done += 1
            new[name] = answers
        if version is None and new.keys() == old.keys():
            continue
        out = {"podman": version or podman("--version").strip(), "cases": new}
        with open(f"{OUT}/{os.path.basename(recorded)}", "w") as f:
            json.dump(out, f, indent=1, ensure_ascii=False)
            f.write("\n")
    print(f"{done} recorded, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
