"""Faults on demand: which calls they meet, and how many of them."""

import threading


class Fault:
    """One rule. `action` and what else is given must match; the `nth` match and `count - 1` after it are met."""

    KINDS = ("error", "reset", "lost", "delay", "capacity")
    FIELDS = {"kind", "action", "service", "region", "instance_type", "zone", "purchase", "nth", "count", "status", "code",
              "message", "seconds"}

    def __init__(self, rule):
        unknown = set(rule) - self.FIELDS
        if unknown or rule.get("kind") not in self.KINDS:
            raise ValueError(f"a fault has a kind of {self.KINDS} and fields of {sorted(self.FIELDS)}: {rule}")
        self.rule = rule
        self.kind = rule["kind"]
        self.status = int(rule.get("status", 500))
        self.code = rule.get("code", "InsufficientInstanceCapacity" if self.kind == "capacity" else "InternalError")
        self.message = rule.get("message", "A fault of the rig.")
        self.seconds = float(rule.get("seconds", 0))
        self.seen = self.met = 0

    def matches(self, **facts):
        return all(self.rule[name] == facts.get(name) for name in ("action", "service", "region", "instance_type", "zone",
                                                                    "purchase") if name in self.rule)

    def strikes(self):
        """Count a match; whether it is one that is met."""
        self.seen += 1
        first = int(self.rule.get("nth", 1))
        count = self.rule.get("count")
        due = self.seen >= first and (count is None or self.seen < first + int(count))
        self.met += due
        return due

    def describe(self):
        return {**self.rule, "seen": self.seen, "met": self.met}


class Faults:
    def __init__(self):
        self.rules, self.lock = [], threading.Lock()

    def replace(self, rules):
        rules = [Fault(rule) for rule in rules]
        with self.lock:
            self.rules = rules

    def add(self, rules):
        rules = [Fault(rule) for rule in rules]
        with self.lock:
            self.rules += rules

    def remove(self, fields):
        with self.lock:
            self.rules = [kept for kept in self.rules if any(kept.rule.get(name) != value for name, value in fields.items())]

    def take(self, call):
        """The first fault that meets this call; every rule that matches counts it."""
        facts = {"action": call.action, "service": call.service, "region": call.region,
                 "instance_type": call.parameters.get("InstanceType"),
                 "zone": call.parameters.get("Placement.AvailabilityZone")}
        with self.lock:
            due = [rule for rule in self.rules if rule.kind != "capacity" and rule.matches(**facts) and rule.strikes()]
        return due[0] if due else None

    def capacity(self, region, instance_type, zone, purchase):
        """The fault that keeps CreateFleet from this pool, if there is one."""
        facts = {"action": "CreateFleet", "service": "ec2", "region": region, "instance_type": instance_type, "zone": zone,
                 "purchase": purchase}
        with self.lock:
            due = [rule for rule in self.rules if rule.kind == "capacity" and rule.matches(**facts) and rule.strikes()]
        return due[0] if due else None
