"""Builds a Kafka broker image where none can be pulled: `python tests/kafka_image.py [--tag NAME:TAG]`.

Owns one thing: a local image that keeps the contract of `apache/kafka`, as far as a test uses it. `KAFKA_*`
variables become properties, `/etc/kafka/docker/run` configures, formats the storage and starts the broker as
process 1 under `appuser`, and SIGTERM shuts it down cleanly. Kafka's own `KafkaDockerWrapper` does the
configuring, so a property means here what it means there. What else the official image has is left out:
Kafka's command line tools, bash, and the checks around TLS and SASL files.

Invariant: the tag is either absent or a complete image, since it is given in the last step; an image that this
command did not make is never replaced.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import NoReturn

KAFKA_VERSION = "4.2.2"
LOG4J_VERSION = "2.24.3"  # log4j-slf4j-impl speaks slf4j 1.7, which is what this Kafka logs through
DEFAULT_TAG = f"stocktrade/kafka-test:{KAFKA_VERSION}"
LABEL = "stocktrade.kafka-image.recipe"
OLDEST_JAVA = 17  # what a Kafka 4 broker needs
APPUSER = 1000
ARCHIVE = "-XX:ArchiveClassesAtExit"
START_S = 120

# What the broker, its storage formatter and its logging load; found by starting it, since class paths that
# leave optional dependencies out cannot be analysed as a whole.
JAVA_MODULES = (
    "java.base",
    "java.desktop",  # for java.beans, which log4j and jackson use
    "java.logging",
    "java.management",
    "java.naming",
    "java.net.http",
    "java.scripting",
    "java.security.jgss",
    "java.security.sasl",
    "java.sql",
    "java.xml",
    "jdk.crypto.ec",
    "jdk.management",
    "jdk.unsupported",
    "jdk.zipfs",
)

# command -> (what it is for, Debian's package)
TOOLS = {
    "docker": ("to import the image", "docker.io"),
    "mvn": ("to bring Kafka's jars", "maven"),
    "jlink": (f"to cut a Java {OLDEST_JAVA}+ runtime out of a JDK", "default-jdk-headless"),
    "busybox": ("for the shell inside the image", "busybox-static"),
    "ldd": ("to find the C libraries that Java needs", "libc-bin"),
}

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>stocktrade</groupId>
  <artifactId>kafka-image</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.8.1</version>
      </plugin>
    </plugins>
  </build>
</project>
"""

RUN = """\
#!/bin/sh
# Configure from KAFKA_* (and NAME=value arguments), format the storage if that is to do, become the broker.
set -eu
trap 'exit 143' TERM
for assignment in "$@"; do export "${assignment?}"; done
: "${CLUSTER_ID:=5L6g3nShT-eMCtK--X86sw}"
export CLUSTER_ID
if [ -z "${KAFKA_LISTENERS:-}" ] && [ -n "${KAFKA_ADVERTISED_LISTENERS:-}" ]; then
    KAFKA_LISTENERS=$(echo "$KAFKA_ADVERTISED_LISTENERS" | sed -e 's|://[^:]*:|://0.0.0.0:|g')
    export KAFKA_LISTENERS
fi
classpath='/opt/kafka/libs/*'
log4j=/opt/kafka/config/log4j2.yaml

echo '===> Configuring ...'
# Of archived classes java needs half of the time to start; it does without where they do not fit.
archive=${CLASS_ARCHIVE:--XX:SharedArchiveFile}
# In the background, so that the trap answers at once.
java "$archive=/opt/kafka/classes/setup.jsa" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$classpath" \\
    -Dlog4j2.configurationFile=/etc/kafka/docker/tools-log4j2.yaml kafka.docker.KafkaDockerWrapper setup \\
    --default-configs-dir /etc/kafka/docker \\
    --mounted-configs-dir /mnt/shared/config \\
    --final-configs-dir /opt/kafka/config >/tmp/setup.log 2>&1 &
if ! wait $! && ! grep -qi 'already formatted' /tmp/setup.log; then
    cat /tmp/setup.log >&2
    exit 1
fi

echo '===> Launching ...'
# The options are lists of words.
# shellcheck disable=SC2086
exec java "$archive=/opt/kafka/classes/broker.jsa" ${KAFKA_HEAP_OPTS:--Xms256m -Xmx1G} \\
    ${KAFKA_JVM_PERFORMANCE_OPTS:--XX:+UseG1GC -XX:MaxGCPauseMillis=20} \\
    ${KAFKA_JMX_OPTS:-} ${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=$log4j} ${KAFKA_OPTS:-} \\
    -Djava.awt.headless=true -Dkafka.logs.dir=/opt/kafka/logs -cp "$classpath" \\
    kafka.Kafka /opt/kafka/config/server.properties
"""

# One node that is reached at localhost:9092: what the broker becomes when no KAFKA_* variable is set.
SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
advertised.listeners=PLAINTEXT://localhost:9092
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=/tmp/kraft-combined-logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""

LOG4J = """\
Configuration:
  Appenders:
    Console:
      name: {target}
      target: SYSTEM_{target_stream}
      PatternLayout:
        pattern: "[%d] %p %m (%c)%n"
  Loggers:
    Root:
      level: {level}
      AppenderRef:
        - ref: {target}
"""

FILES = {
    "etc/kafka/docker/server.properties": SERVER_PROPERTIES,
    "etc/kafka/docker/log4j2.yaml": LOG4J.format(target="STDOUT", target_stream="OUT", level="INFO"),
    "etc/kafka/docker/tools-log4j2.yaml": LOG4J.format(target="STDERR", target_stream="ERR", level="WARN"),
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nappuser:x:{APPUSER}:{APPUSER}::/home/appuser:/bin/sh\n",
    "etc/group": f"root:x:0:\nappuser:x:{APPUSER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

# Where the broker, which is not root, writes.
WRITABLE = (
    "etc/kafka/secrets",
    "home/appuser",
    "mnt/shared/config",
    "opt/kafka/classes",
    "opt/kafka/config",
    "opt/kafka/logs",
    "var/lib/kafka/data",
)

CHANGES = (
    "ENV PATH=/opt/java/openjdk/bin:/bin",
    "ENV JAVA_HOME=/opt/java/openjdk",
    "ENV LANG=C.UTF-8",
    "EXPOSE 9092",
    "USER appuser",
    'VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]',
    'CMD ["/etc/kafka/docker/run"]',
)


def say(text: str) -> None:
    """Tell what happens, at once: a build takes long enough to wonder."""
    sys.stdout.write(f"kafka_image: {text}\n")
    sys.stdout.flush()


def fail(what: str, why: str, next_step: str) -> NoReturn:
    """End the command with what is wrong, why that matters and what to do next."""
    sys.exit(f"kafka_image: {what}\n  why:  {why}\n  next: {next_step}")


def run(what: str, *command: str | Path, cwd: Path | None = None) -> str:
    """Run a command and return what it printed; end this one with its output when it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n    ".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        fail(
            f"{what} failed: {' '.join(map(str, command))}",
            f"it ended with {done.returncode} and said\n    {said}",
            "mend that, then run this command again; nothing was left half done",
        )
    return done.stdout


def check_tools() -> None:
    """Refuse before any work if a tool is missing, too old or not running."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        fail(
            f"missing: {', '.join(missing)}",
            "; ".join(f"{tool} is needed {TOOLS[tool][0]}" for tool in missing),
            "on Debian: apt-get install " + " ".join(TOOLS[tool][1] for tool in missing),
        )
    version = run("asking the JDK's version", "jlink", "--version").strip()
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < OLDEST_JAVA:
        fail(
            f"this jlink is of Java {version}",
            f"the image gets its Java, and Kafka {KAFKA_VERSION} needs Java {OLDEST_JAVA} or later",
            f"put the bin folder of a JDK {OLDEST_JAVA} or later first on PATH",
        )
    if subprocess.run(("docker", "version"), capture_output=True, check=False).returncode != 0:
        fail(
            "no Docker engine answers",
            "the image is imported into it",
            "start Docker (on Debian as root: .ci/docker start), then run this command again",
        )


def recipe_of_image(tag: str) -> str | None:
    """Return the recipe of a local image: empty for one made by somebody else, None if there is no image."""
    template = f'{{{{with .Config.Labels}}}}{{{{index . "{LABEL}"}}}}{{{{end}}}}'
    command = ("docker", "image", "inspect", "--format", template, tag)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def fetch_jars(work: Path) -> Path:
    """Bring Kafka and what it needs at run time, through Maven and its usual cache."""
    (work / "pom.xml").write_text(POM)
    libs = work / "libs"
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libs}")
    run("bringing Kafka's jars", "mvn", "--quiet", "--batch-mode", *goal, cwd=work)
    if not (libs / f"kafka_2.13-{KAFKA_VERSION}.jar").is_file():
        why = f"kafka_2.13-{KAFKA_VERSION}.jar is not among what it copied"
        fail("Maven brought no broker", why, "look at Maven's settings: a mirror or a profile may replace it")
    return libs


def link_runtime(work: Path) -> Path:
    """Cut a small Java runtime out of the JDK, with its own archive of shared classes for a faster start."""
    runtime = work / "jre"
    options = ("--strip-java-debug-attributes", "--no-header-files", "--no-man-pages", f"--output={runtime}")
    # No window is ever opened, and the desktop's native code would want libraries of X11.
    no_desktop = "--exclude-files=glob:/java.desktop/lib/**.so"
    run("linking a Java runtime", "jlink", f"--add-modules={','.join(JAVA_MODULES)}", no_desktop, *options)
    run("archiving its shared classes", runtime / "bin" / "java", "-Xshare:dump")
    return runtime


def shared_libraries(binary: Path) -> set[Path]:
    """Return what a binary is linked to, by absolute path; nothing for a static one."""
    done = subprocess.run(("ldd", binary), capture_output=True, text=True, check=False)
    return {Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)}


def native_code(libs: Path, folder: Path) -> list[Path]:
    """Unpack the C libraries that jars carry; what they are linked to, compression needs in the image."""
    found = []
    for jar in sorted(libs.glob("*.jar")):
        with zipfile.ZipFile(jar) as content:
            names = [name for name in content.namelist() if name.endswith(".so")]
            found += [Path(content.extract(name, folder / jar.stem)) for name in names]
    return found


def pack(image: Path, runtime: Path, libs: Path) -> None:
    """Write the image's tree as a tar file; owners are set there, so that root is not needed here."""
    with tarfile.open(image, "w") as tar:
        made: set[str] = set()

        def entry(name: str, mode: int, owner: int = 0) -> tarfile.TarInfo:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = mode, owner, owner, int(time.time())
            return info

        def add_folder(name: str, mode: int = 0o755, owner: int = 0) -> None:
            parent = str(Path(name).parent)
            if parent != "." and parent not in made:
                add_folder(parent)
            made.add(name)
            info = entry(name, mode, owner)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)

        def add_file(name: str, content: bytes, mode: int = 0o644) -> None:
            if str(Path(name).parent) not in made:
                add_folder(str(Path(name).parent))
            info = entry(name, mode)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))

        def add_link(name: str, target: str) -> None:
            info = entry(name, 0o777)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)

        add_folder("tmp", 0o1777)
        for name in WRITABLE:
            add_folder(name, owner=APPUSER)
        for name, text in FILES.items():
            add_file(name, text.encode())
        add_file("etc/kafka/docker/run", RUN.encode(), 0o755)

        busybox = Path(shutil.which("busybox") or "busybox").resolve()
        add_file("bin/busybox", busybox.read_bytes(), 0o755)
        for applet in run("listing the shell's tools", busybox, "--list").split():
            if applet != "busybox":
                add_link(f"bin/{applet}", "busybox")

        native = native_code(libs, image.parent / "native")
        binaries = [busybox, runtime / "bin" / "java", *runtime.rglob("*.so"), *native]
        for library in sorted(set().union(*map(shared_libraries, binaries))):
            if not library.resolve().is_relative_to(runtime.resolve()):
                add_file(str(library).lstrip("/"), library.read_bytes(), 0o755)

        add_folder("opt/java")
        tar.add(runtime, "opt/java/openjdk", filter=_owned_by_root)
        tar.add(libs, "opt/kafka/libs", filter=_owned_by_root)


def _owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info


def archive_classes(work: Path, image: str, tag: str) -> None:
    """Tag an image with archives of the classes that its broker uses: they come out of one that starts and ends."""
    broker = run("starting a broker", "docker", "run", "--detach", f"--env=CLASS_ARCHIVE={ARCHIVE}", image).strip()
    try:
        deadline = time.monotonic() + START_S
        while "Kafka Server started" not in run("reading what it says", "docker", "logs", broker):
            state = run("asking whether it runs", "docker", "inspect", "--format={{.State.Running}}", broker)
            if state.strip() != "true" or time.monotonic() > deadline:
                # It shows the whole of what the broker said, on both of its streams.
                run("starting it", "sh", "-c", f"docker logs {broker}; false")
            time.sleep(0.5)
        run("ending it", "docker", "stop", f"--time={START_S}", broker)
        run("taking the archives", "docker", "cp", f"{broker}:/opt/kafka/classes", work)
    finally:
        run("removing it", "docker", "rm", "--force", "--volumes", broker)
    # Into a container that is never started, or the image would hold what a broker wrote.
    fresh = run("making a container", "docker", "create", image).strip()
    try:
        run("putting the archives in", "docker", "cp", work / "classes", f"{fresh}:/opt/kafka")
        run("making the image", "docker", "commit", fresh, tag)
    finally:
        run("removing the container", "docker", "rm", "--volumes", fresh)


def build(tag: str, recipe: str) -> None:
    """Build the image in a temporary folder, on an unfinished one that has no name."""
    with tempfile.TemporaryDirectory(prefix="stocktrade-kafka-image-") as folder:
        work = Path(folder)
        say(f"bringing the jars of Kafka {KAFKA_VERSION} with Maven")
        libs = fetch_jars(work)
        say("linking a Java runtime")
        runtime = link_runtime(work)
        say("packing")
        image = work / "image.tar"
        pack(image, runtime, libs)
        say("importing into Docker")
        changes = [f"--change={change}" for change in (*CHANGES, f"LABEL {LABEL}={recipe}")]
        unfinished = run("importing the image", "docker", "import", *changes, image).strip()
        say("archiving the broker's classes")
        try:
            archive_classes(work, unfinished, tag)
        except BaseException:
            subprocess.run(("docker", "image", "rm", unfinished), capture_output=True, check=False)
            raise


def main() -> None:
    """Build the image unless it is there."""
    parser = argparse.ArgumentParser(description="Build a Kafka broker image that is used like apache/kafka.")
    parser.add_argument("--tag", default=DEFAULT_TAG, help="name and tag of the image (default: %(default)s)")
    tag = parser.parse_args().tag
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]

    check_tools()
    found = recipe_of_image(tag)
    if found == recipe:
        say(f"{tag} is there")
        return
    if found == "":
        say(f"{tag} is there, and not made by this command: left as it is")
        return
    if found is not None:
        say(f"{tag} is there, made by an older recipe: building it anew")
    begin = time.monotonic()
    build(tag, recipe)
    if found is not None:
        # The tag has moved on; this takes the older image away, unless a container still uses it.
        by_label = ("docker", "image", "prune", "--force", f"--filter=label={LABEL}={found}")
        subprocess.run(by_label, capture_output=True, check=False)
    size = int(run("asking the image's size", "docker", "image", "inspect", "--format", "{{.Size}}", tag))
    say(f"{tag} built: {size / 1e6:.0f} MB in {time.monotonic() - begin:.0f} s")
    say(f"tests use it with STOCKTRADE_TEST_KAFKA_IMAGE={tag}")


if __name__ == "__main__":
    main()
