"""What no schema checks of the rendered chart; run by deploy/validate.

    python rendered.py FOLDER_OF_MANIFESTS PROMTOOL

The program itself ($VERIFF_ARCHIVE_BIN) reads every configuration and every container's arguments. Then the promises of
the chart: the rate of all workers together, the grace period, who may do what in a pod, the one copy of the rules.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/veriff-archive"
BINARY = os.environ["VERIFF_ARCHIVE_BIN"]
# A variable of this machine must not supply what a configuration lacks.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("VERIFF_")}

faults = []
counts = {"configurations": 0, "argument lists": 0, "pods": 0, "expressions": 0}


def fault(where, what):
    faults.append(f"{where}: {what}")


def run(where, arguments, what):
    answer = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode != 0:
        fault(where, f"{what}, exit {answer.returncode}\n    " + answer.stderr.strip().replace("\n", "\n    "))


def check_configuration(where, text):
    counts["configurations"] += 1
    tomllib.loads(text)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "archive.toml"
        path.write_text(text)
        run(where, [BINARY, "--config", str(path), "config", "check"], "`config check` refuses it")


def pod_specs(resource):
    spec = resource.get("spec", {})
    if resource["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if resource["kind"] in ("CronJob", "Job", "Deployment"):
        yield spec, spec["template"]["spec"]


def check_pod(where, kind, spec, pod):
    counts["pods"] += 1
    drain = None
    for container in pod.get("initContainers", []) + pod["containers"]:
        counts["argument lists"] += 1
        # Parsed in order: an argument that is not understood is refused before the help is reached.
        run(where, [BINARY, *container["args"], "--help"], f"the program does not understand {container['args']}")
        for argument in container["args"]:
            if argument.startswith("--drain-timeout="):
                drain = int(argument.removeprefix("--drain-timeout=").removesuffix("s"))
        security = container["securityContext"]
        if not (
            security["readOnlyRootFilesystem"]
            and security["runAsNonRoot"]
            and not security["allowPrivilegeEscalation"]
            and security["capabilities"] == {"drop": ["ALL"]}
        ):
            fault(where, "the container may do too much")
        if "memory" not in container["resources"].get("limits", {}):
            fault(where, 'no memory limit: limits.memory = "auto" would read that of the node')
    if drain is not None and pod["terminationGracePeriodSeconds"] != drain + 10:
        fault(where, f"grace period {pod['terminationGracePeriodSeconds']} s for a drain timeout of {drain} s")
    if pod["securityContext"]["seccompProfile"] != {"type": "RuntimeDefault"}:
        fault(where, "no seccomp profile")
    if kind != "Deployment":
        rules = spec["podFailurePolicy"]["rules"]
        ends = [code for rule in rules[:1] if rule["action"] == "FailJob" for code in rule["onExitCodes"]["values"]]
        if ends != [2, 77, 78]:
            fault(where, f"ends at once on {ends}, not on 2, 77, 78")
        if rules[1]["action"] != "Ignore" or rules[1]["onPodConditions"][0]["type"] != "DisruptionTarget":
            fault(where, "counts a disruption as a failure")
        if pod["restartPolicy"] != "Never":
            fault(where, "a pod failure policy needs restartPolicy Never")


def check_rates(where, configurations, workers):
    """All that runs at once asks no faster than the whole was allowed."""
    whole = configurations["archive.toml"]["integrations"]
    for name, integration in whole.items():
        sum_of_all = sum(
            configuration["integrations"][name]["max_requests_per_second"] * workers[file]
            for file, configuration in configurations.items()
            if file != "archive.toml"
        )
        if sum_of_all > integration["max_requests_per_second"] * 1.001:
            fault(where, f"{name}: {sum_of_all} requests a second together")


def check_manifests(path):
    rules = yaml.safe_load((CHART / "files/veriff-archive.rules.yaml").read_text())
    dashboard = json.loads((CHART / "files/veriff-archive.dashboard.json").read_text())
    configurations, workers = {}, {"nightly.toml": 1, "backfill.toml": 0, "queue.toml": 0}
    for resource in yaml.safe_load_all(path.read_text()):
        if resource is None:
            continue
        where = f"{path.name}: {resource['kind']} {resource['metadata']['name']}"
        # A CronJob's name gets eleven characters more, and the name of a Job is a label of its pods.
        if len(resource["metadata"]["name"]) > (52 if resource["kind"] == "CronJob" else 63):
            fault(where, "the name is too long")
        if resource["kind"] == "ConfigMap":
            for key, text in resource["data"].items():
                if key.endswith(".toml"):
                    check_configuration(f"{where}: {key}", text)
                    configurations[key] = tomllib.loads(text)
                elif json.loads(text) != dashboard:
                    fault(where, "is not the dashboard")
        if resource["kind"] == "PrometheusRule" and resource["spec"] != rules:
            fault(where, "has other rules than files/veriff-archive.rules.yaml")
        if resource["kind"] == "Deployment":
            workers["queue.toml"] = resource["spec"].get("replicas", 0)
        if resource["kind"] == "Job" and resource["metadata"]["labels"]["app.kubernetes.io/component"] == "backfill":
            workers["backfill.toml"] = resource["spec"]["parallelism"]
        for spec, pod in pod_specs(resource):
            check_pod(where, resource["kind"], spec, pod)
    check_rates(path.name, configurations, workers)


def check_dashboard(promtool):
    """Grafana's variables replaced, promtool reads each expression as the rule that it is not."""
    dashboard = json.loads((CHART / "files/veriff-archive.dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    counts["expressions"] = len(expressions)
    rules = [
        {"record": f"dashboard:{at}", "expr": text.replace("$__rate_interval", "5m").replace("$integration", ".*")}
        for at, text in enumerate(expressions)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        run("the dashboard", [promtool, "check", "rules", file.name], "an expression is not PromQL")


def check_links():
    for link, file in (
        ("deploy/alerts/veriff-archive.rules.yaml", "files/veriff-archive.rules.yaml"),
        ("deploy/dashboards/veriff-archive.json", "files/veriff-archive.dashboard.json"),
    ):
        if (ROOT / link).read_bytes() != (CHART / file).read_bytes():
            fault(link, f"is another copy than {file} of the chart")


def check_schema_of_configuration():
    """Every key of the reference may be set by the chart."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    reference = tomllib.loads((ROOT / "config/reference.toml").read_text())
    for section, keys in reference.items():
        known = schema.get(section, {})
        known = known.get("anyOf", [known])[0]
        if section == "integrations":
            keys = keys["default"]
            known = next(iter(known["patternProperties"].values()))["anyOf"][0]
        for key in keys:
            if key not in known.get("properties", {}):
                fault("values.schema.json", f"does not know {section}.{key} of config/reference.toml")


def main():
    folder, promtool = sys.argv[1:]
    manifests = sorted(pathlib.Path(folder).glob("*.yaml"))
    if len(manifests) < 2:
        fault(folder, "nothing was rendered")
    for path in manifests:
        check_manifests(path)
    check_dashboard(promtool)
    check_links()
    check_schema_of_configuration()
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    for text in faults:
        print(text)
    sys.exit(1 if faults else 0)


main()
