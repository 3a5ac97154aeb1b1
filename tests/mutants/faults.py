"""Faults to plant in the kernel, by rule: a test of the tests. Each is one replaced piece of source and the tests
that must notice it. `tests/mutants/run.py` plants them all; the suite plants one a rule."""

from typing import NamedTuple


class Fault(NamedTuple):
    rule: str
    file: str
    old: str
    new: str
    tests: str  # pytest arguments


DIFF = "tests/soundness/test_differential.py"
REG = "tests/soundness/test_regressions.py"
RULES = "tests/soundness/test_rules.py"
FLOAT32 = "tests/soundness/test_float32.py"
ARITHMETIC = "tests/kernel/test_arithmetic.py"
ELEMENTARY = "tests/kernel/test_elementary.py"
FOLD = "tests/kernel/test_fold.py"
SEMANTICS = "tests/kernel/test_semantics.py"
RECURSION = "tests/kernel/test_recursion.py"
LINEAR = "tests/soundness/test_linear.py"
FILES = "tests/soundness/test_linear_files.py"
CUT = "tests/soundness/test_cut.py"
MECHANISMS = "tests/claims/test_mechanisms.py"
FACTS = "tests/soundness/test_facts.py"
FUNCTIONS = "tests/kernel/test_functions.py"
NEURONS = "tests/soundness/test_neurons.py"

FAULTS = [
    # rules/evaluation.py and Job.decide
    Fault("enumerate", "rules/evaluation.py", "Bounds(right, domain.size - wrong)",
          "Bounds(domain.size - wrong, domain.size - wrong)", RULES),
    Fault("enumerate", "claim.py", "wins = ((ar.lower(margin) > 0)", "wins = ((ar.lower(margin) >= 0)", RULES),
    Fault("enumerate", "claim.py", "wins = ((ar.lower(margin) > 0)", "wins = ((ar.upper(margin) > 0)", RULES),
    Fault("enumerate", "claim.py", "return possible & wins, ~possible | loses", "return wins, loses", RULES),
    Fault("counterexample", "rules/evaluation.py", "if not wrong.all():", "if not wrong.any():", RULES),
    Fault("counterexample", "rules/evaluation.py", "len(set(map(tuple, rows))) != len(rows) or ", "", RULES),
    Fault("counterexample", "rules/evaluation.py", " or not domain.contains(listed)", "", RULES),
    Fault("counterexample", "claim.py", "loses = ((ar.upper(margin) <= 0)", "loses = ((ar.lower(margin) <= 0)", RULES),
    # check.py
    Fault("split", "check.py", "(None, halves[1], node[\"outside\"])", "(None, halves[0], node[\"outside\"])", RULES),
    Fault("split", "claim.py", "if (t in first) == inside)", "if t in first or not inside)", RULES),
    Fault("split", "check.py", "Bounds(a.low + b.low, a.high + b.high)", "Bounds(a.low + b.high, a.high + b.high)", RULES),
    Fault("both", "check.py", "max(a.low, b.low)", "max(a.high, b.low)", RULES),
    Fault("both", "check.py", "min(a.high, b.high)", "min(a.low, b.high)", RULES),
    Fault("both", "check.py", "contradictory = both.low > both.high", "contradictory = False", REG),
    Fault("conclusion", "check.py", "if stated.low > proved.low or", "if stated.low > proved.high or", RULES),
    Fault("conclusion", "check.py", "or stated.high < proved.high:", "or stated.high < proved.low:", RULES),
    Fault("conclusion", "check.py", "and stated.low < needed", "and stated.high < needed", RULES),
    Fault("conclusion", "check.py", "stated.high < needed and", "stated.high <= needed and", RULES),
    Fault("conclusion", "check.py", "if listed != (needed :=", "if () == (needed :=", RULES),
    Fault("conclusion", "claim.py", "!= hashlib.sha256(weights_data).hexdigest()", "== ''", RULES),
    # rules/fold.py
    Fault("fold", "rules/fold.py", "return w * np.where(w >= 0, small, large)", "return w * np.where(w >= 0, large, small)",
          FOLD),
    Fault("fold", "rules/fold.py", "~(self.terms.minima[self.row] > 0)", "~(self.terms.minima[self.row] >= 0)", RULES),
    Fault("fold", "rules/fold.py", "right_max + domain.size - covered", "right_max", DIFF),
    Fault("fold", "rules/fold.py", "if covered else self.size)", "if covered or groups else self.size)", DIFF),
    Fault("fold", "rules/fold.py", "t < self.family.outputs and t != self.family.right", "t < self.family.outputs", RULES),
    Fault("fold", "rules/fold.py", "low) <= slack).any(1)", "high) <= -slack).any(1)", RULES),
    Fault("fold", "rules/fold.py", "high) <= -slack).any(1)", "low) <= slack).any(1)", RULES),
    Fault("fold", "rules/fold.py", "step, upwards=not upwards)", "step, upwards=upwards)", DIFF),
    Fault("fold", "rules/fold.py", "sum(self.count_wrong(*group) for group in groups)",
          "max((self.count_wrong(*group) for group in groups), default=0)", RULES),
    Fault("fold", "rules/fold.py", "return self._count(low.min(-1), step, upwards=True)",
          "return self._count(low.max(-1), step, upwards=True)", DIFF),
    Fault("fold", "rules/fold.py", "alive[:, :, form.pin] &= np.arange(vocab) == queries[:, None]",
          "alive[:, :, form.pin] &= np.arange(vocab) != queries[:, None]", DIFF),
    # recursion.py
    Fault("recursion", "recursion.py", "after[at] = np.minimum(after[at], values[order])", "after[at] = values[order]", RECURSION),
    Fault("recursion", "recursion.py", "row[going] += len(tokens) * counts", "row[going] += counts", RECURSION),
    Fault("recursion", "recursion.py", "return min(certain + slack, size) if upwards else max(certain - slack, 0)",
          "return certain - slack if upwards else certain + slack", RECURSION),
    Fault("recursion", "recursion.py", "(1 - (low.sum() - low))", "(0 - (low.sum() - low))", RECURSION),
    Fault("recursion", "recursion.py", "np.maximum(-shift, 0)", "np.maximum(-shift - 1, 0)", RECURSION),
    Fault("recursion", "float64.py", "np.maximum(np.ceil(scaled), 1.0)", "np.ceil(scaled)", REG),
    # automaton.py, integers.py
    Fault("automaton", "automaton.py", " and not (position and self._done(a, position))", "", "tests/kernel/test_automaton.py"),
    Fault("automaton", "automaton.py", "return node in self.roots or any(", "return node in self.roots or all(",
          "tests/kernel/test_automaton.py"),
    Fault("automaton", "automaton.py", "np.where(automaton.final == target, 0, -1)",
          "np.where(automaton.final >= target, 0, -1)", "tests/kernel/test_automaton.py"),
    Fault("mechanism", "integers.py", "-np.sort(-both, -1)[..., :attribute]", "np.sort(both, -1)[..., -attribute:]",
          "tests/kernel/test_automaton.py"),
    Fault("mechanism", "integers.py", "lambda k, a: a // k", "lambda k, a: -(-a // k)", "tests/kernel/test_automaton.py"),
    Fault("mechanism", "integers.py", "if any(lo < 0 or hi > 1 for lo, hi in spans[: operation.truths]):", "if False:",
          "tests/kernel/test_graph.py"),
    Fault("mechanism", "integers.py", "if not -LIMIT < result[0] <= result[1] < LIMIT:", "if False:",
          "tests/kernel/test_graph.py"),
    # ratio.py
    Fault("ratio form", "ratio.py", "model.add(mixture.base, tables.align(others[0], len(node.shape)), sums)", "mixture.base",
          "tests/kernel/test_ratio.py"),
    Fault("ratio form", "ratio.py", "if pattern.shape[:-1] != (1,) * (len(first) - 1):", "if False:",
          "tests/kernel/test_ratio.py"),
    Fault("ratio form", "ratio.py", "np.flatnonzero(kept(pattern))", "np.arange(pattern.shape[-1])", "tests/kernel/test_ratio.py"),
    Fault("ratio form", "ratio.py", "lambda _: vocab[:, None])", "lambda _: vocab[::-1, None])", "tests/kernel/test_ratio.py"),
    # neurons.py, and what ratio.py, recursion.py and rules/fold.py do for it
    Fault("neurons", "neurons.py", "np.where(sums >= 0, heavy, light)", "np.where(sums >= 0, light, heavy)", NEURONS),
    Fault("neurons", "neurons.py", "np.where(w >= 0, low[..., None], high[..., None])",
          "np.where(w >= 0, high[..., None], low[..., None])", NEURONS),
    Fault("neurons", "neurons.py", "usable = occupied & (masses[..., :1] > 0)", "usable = occupied", NEURONS),
    Fault("neurons", "neurons.py", "a[queries] if len(a) > 1", "a[: len(queries)] if len(a) > 1", NEURONS),
    Fault("neurons", "neurons.py", "whole[:, queries] =", "whole[:, : len(queries)] =", NEURONS),
    Fault("neurons", "neurons.py", "-ar.upper(away)", "ar.lower(away)", NEURONS),
    Fault("neurons", "neurons.py", "np.where(alive, side, ar.infinity).min((1, 2))", "np.where(alive, side, ar.infinity).max((1, 2))",
          NEURONS),
    Fault("neurons", "neurons.py", "beneath = (c.mid >= 0) != upper", "beneath = (c.mid >= 0)", NEURONS),
    Fault("neurons", "neurons.py", ", above.map(lambda a: a[..., None]))", ", zero.map(lambda a: a[..., None]))", NEURONS),
    Fault("neurons", "neurons.py", "spread if upper else -spread", "-spread if upper else spread", NEURONS),
    Fault("neurons", "neurons.py", "ar.sub(c.map(lambda a: a[..., right, None]), c)", "c", NEURONS),
    Fault("neurons", "ratio.py", "_added(model, mixture.neurons, other.neurons, sums)", "mixture.neurons", NEURONS),
    Fault("neurons", "ratio.py", "flat = _Mixture(z.base.map(np.zeros_like)", "flat = _Mixture(z.base", NEURONS),
    Fault("neurons", "ratio.py", "Neurons(ar.scale(z.base, down)", "Neurons(z.base", NEURONS),
    Fault("neurons", "ratio.py", "None if p is None else model.contract(node.attr, p, factor)",
          "None if p is None else model.ar.contract(node.attr, p, factor)", NEURONS),
    Fault("neurons", "recursion.py", "if position == pin:", "if position == len(terms) - 2:", NEURONS),
    Fault("neurons", "recursion.py", "total = best + terms[position, token] if", "total = best + terms[position, tokens[-1]] if", NEURONS),
    Fault("neurons", "recursion.py", "_keep_least(ar, result, automaton.final, best)",
          "_keep_least(ar, result, automaton.final[::-1], best)", NEURONS),
    Fault("neurons", "rules/fold.py", "a[self.index]", "a[-1]", NEURONS),
    Fault("neurons", "rules/fold.py", "for upper in (False, True)", "for upper in (False, False)", NEURONS),
    Fault("neurons", "rules/fold.py", "alive[:, list(here), i] = True", "alive[:, list(here)[:1], i] = True", NEURONS),
    Fault("margin", "rules/fold.py", "ar.sub(base, ar.rational(self.margin)) if self.margin else base", "base", NEURONS),
    Fault("margin", "claim.py", "ar.sub(margin, ar.rational(claim.margin)) if claim.margin else margin", "margin", NEURONS),
    Fault("margin", "claim.py", "if not 0 <= self.margin < 2**1000:", "if False:", NEURONS),
    # arithmetic
    Fault("float64", "float64.py", "(UNIT if terms == 1 else 0.0) * np.abs(mid)", "0.0 * np.abs(mid)", ARITHMETIC),
    Fault("float64", "float64.py", "return rad * (1 + (terms + 16) * 2.0**-51) + (terms + 4) * ETA", "return rad", ARITHMETIC),
    Fault("float64", "float64.py", "return rad + (2 * n * UNIT * size + ETA)", "return rad + ETA", ARITHMETIC),
    Fault("float64", "float64.py", "room = self.down(np.abs(y.mid) - y.rad)", "room = np.abs(y.mid)", ARITHMETIC),
    Fault("float64", "arithmetic.py", "x.rad * (np.abs(y.mid) + y.rad)", "x.rad * np.abs(y.mid)", ARITHMETIC),
    Fault("exact", "exact.py", "* y.rad) // room + 2", "* y.rad) // room", ARITHMETIC),
    Fault("exact", "exact.py", "(x.rad >> shift) + 2, x.rad)", "x.rad >> shift, x.rad)", ARITHMETIC),
    Fault("exact", "exact.py", "return self._ball(mid, (x.rad << bits) // mid + 2, ", "return self._ball(mid, x.rad, ",
          ARITHMETIC),
    # elementary.py
    Fault("series", "elementary.py", "float(tail) * (1 + 2.0**-50)", "0.0", ELEMENTARY),
    Fault("series", "elementary.py", "of=ar.trim(ar.add(narrow, ar.mul(narrow, narrow)))", "of=ar.mul(narrow, narrow)",
          ELEMENTARY),
    Fault("series", "elementary.py", "np.where(turn % 4 >= 2, -1, 1)", "np.where(turn % 4 >= 1, -1, 1)", ELEMENTARY),
    Fault("series", "elementary.py", "return _lipschitz(ar, _signed(value, x), x, 1.13, 1.0)",
          "return _lipschitz(ar, _signed(value, x), x, 0.5, 1.0)", ELEMENTARY),
    # semantics.py
    Fault("float32", "semantics.py", "times * U32, times * FLUSH", "0.0, 0.0", FLOAT32),
    Fault("float32", "semantics.py", "        for n, addend in zip(sums, (y, x), strict=True):", "        for n, addend in ():", FLOAT32),
    Fault("float32", "semantics.py", "self._gamma(n + 1), 3 * n * FLUSH, of=size", "0.0, 0.0, of=size", FLOAT32),
    Fault("float32", "semantics.py", "self.ar.widen(x, 2 * U32, 2 * EXP + FLUSH, of=size)", "x", SEMANTICS),
    Fault("float32", "semantics.py", "if not np.array_equal(value.astype(np.float32).astype(np.float64), value):",
          "if False:", SEMANTICS),
    # container.py
    Fault("container", "container.py", "if pack(contents) != data:", "if False:", "tests/kernel/test_container.py"),
    Fault("container", "container.py", "if len(result) != len(pairs):", "if False:", "tests/kernel/test_container.py"),
    Fault("container", "container.py", "if not np.isfinite(values).all():", "if False:", "tests/kernel/test_container.py"),
    # linear.py
    Fault("linear", "linear.py", "ar.sub(lower, upper))", "ar.sub(upper, lower))", LINEAR),
    Fault("linear", "linear.py", '!= "relu" or not self._stable(x, {"relu"}):', '!= "relu":', LINEAR),
    Fault("linear", "linear.py", "ar.xp.where(ar.lower(x) > 0, 1 + 0 * x.mid", "ar.xp.where(ar.lower(x) > 1, 1 + 0 * x.mid", LINEAR),
    Fault("interval", "intervals.py", "return [(node.args[0], k), (node.args[1], -k)]", "return [(node.args[0], k), (node.args[1], k)]",
          LINEAR),
    Fault("linear", "linear.py", "total = self._dot(rounding, self.bounds[n]) if ar.rounds else ar.rational(Fraction(0))",
          "total = ar.rational(Fraction(0))", LINEAR),
    Fault("linear", "linear.py", "self.ar.xp.amin(self.ar.xp.where(allowed, low, np.inf), 3)",
          "self.ar.xp.amin(self.ar.xp.where(allowed, low, np.inf), 3) + 1e-6", LINEAR),
    Fault("linear", "linear.py", "reshape(1, 1, len(table), -1)", "reshape(1, 1, len(table), -1)[:, :, ::-1]", LINEAR),
    Fault("linear", "linear.py", "at = places[:, None] * len(table)", "at = np.arange(len(places))[:, None] * len(table)", LINEAR),
    Fault("linear", "linear.py", "ar.upper(level) if upper else ar.lower(level)", "ar.lower(level) if upper else ar.upper(level)",
          LINEAR),
    Fault("interval", "intervals.py", "zero if inactive else zero - relaxation.SLACK", "zero", LINEAR),
    Fault("interval", "intervals.py", "inactive = bool((ar.lower(args[0]) >= 0).all())", "inactive = bool((ar.upper(args[0]) >= 0).all())",
          LINEAR),
    Fault("interval", "intervals.py", "if not (ar.lower(ar.add(rest, self._dot(negative, self.bounds[squares[0]]))) >= 0).all():",
          "if False:", LINEAR),
    # rules/linear.py
    Fault("linear", "rules/linear.py", "allowed[i, position, list(tokens)] = True", "allowed[i, position, tokens[0]] = True", LINEAR),
    Fault("linear", "rules/linear.py", "start += size", "start += 0", LINEAR),
    Fault("linear", "rules/linear.py", "rows not in (1, relaxed.rows[start])", "rows not in (0, 1, relaxed.rows[start])", LINEAR),
    Fault("linear", "rules/linear.py", "if key in found:", "if False:", LINEAR),
    # relaxation.py
    Fault("relaxation", "relaxation.py", "(-c.values, c.rise) if upper else (c.values, c.sag)",
          "(-c.values, c.sag) if upper else (c.values, c.rise)", FUNCTIONS),
    Fault("relaxation", "relaxation.py", "change = xp.maximum(ar.lower(step", "change = xp.maximum(2 * ar.upper(step",
          FUNCTIONS),
    Fault("relaxation", "relaxation.py", "[xp.where(low > 0, low, xp.where(high < 0, high, 0 * low))]", "[low]", FUNCTIONS),
    Fault("relaxation", "relaxation.py", "if f.positive and not (low > 0).all():", "if f.positive and not (high > 0).all():", FUNCTIONS),
    Fault("relaxation", "relaxation.py", "((xl, yu), (xu, yl)) if upper else ((xl, yl), (xu, yu))",
          "((xl, yl), (xu, yu)) if upper else ((xl, yu), (xu, yl))", LINEAR),
    Fault("relaxation", "relaxation.py", "if not ((mix.mid >= 0) & (mix.mid <= 1)).all():", "if False:", LINEAR),
    Fault("relaxation", "relaxation.py", "ar.xp.maximum(up.mid, down.mid)", "ar.xp.minimum(up.mid, down.mid)", LINEAR),
    Fault("relaxation", "relaxation.py", 'graph.nodes[node.args[0]].op == "softmax" and first', "first", LINEAR),
    Fault("relaxation", "relaxation.py", 'total = add("add", total, ones(*node.shape))', "", LINEAR),
    Fault("relaxation", "relaxation.py", 'add("view", twice, attr=(pairs, 1,', 'add("view", twice, attr=(pairs, 0,', LINEAR),
    Fault("relaxation", "relaxation.py", "after = (np.arange(n)[:, None] + 1", "after = (np.arange(n)[:, None]", LINEAR),
    Fault("relaxation", "relaxation.py", 'add("slack", room, total)', 'add("slack", room, room)', FILES),
    # facts, multipliers, conditions, tables
    Fault("farkas", "claim.py", "(node, entry, at, above))) for above in (False, True)",
          "(node, entry, at, above))) for above in (True, False)", FACTS),
    Fault("farkas", "linear.py", "form = -ar.exact(m)", "form = ar.exact(m)", FACTS),
    Fault("farkas", "linear.py", "ar.xp.where(m > 0, floor, ceiling)", "ar.xp.where(m > 0, ceiling, floor)", FACTS),
    Fault("point", "claim.py", "if not all((ar.lower(values[n]) >= 0).all() for n in claim.where):", "if False:", FACTS),
    Fault("tables", "tables.py", "(a[:, None] + b[:, None] * np.arange(self.length)) % m",
          "(a[:, None] + b[:, None] + np.arange(self.length)) % m", FACTS),
    Fault("tables", "tables.py", "r.sum(-1).max() <= 2}", "r.sum(-1).max() <= 3}", FACTS),
    Fault("tables", "tables.py", "self.known = self.rows < size", "self.known = self.rows <= size", FACTS),
    Fault("tables", "tables.py", "(high < 0, reads)", "(high < 1, reads)", MECHANISMS),
    Fault("tables", "tables.py", "table.reads[:, reads].all(1)", "table.reads[:, reads].any(1)", MECHANISMS),
    Fault("tables", "tables.py", "reads[n] = args[0].any(0) | args[1]", "reads[n] = args[0].any(0)", MECHANISMS),
    Fault("interval", "intervals.py", "return [(int(v.min()), int(v.max())) for v in at]",
          "return [(int(v.min()), int(v.min())) for v in at]", LINEAR),
    Fault("interval", "intervals.py", "if all(a == b for a, b in s):", "if any(a == b for a, b in s):", MECHANISMS),
    Fault("interval", "intervals.py", "(low <= at) & (at <= high)", "(low <= at) & (at < high)", LINEAR),
    # functions.py
    Fault("functions", "functions.py", "_odd(Fraction(77, 100))", "_odd(Fraction(70, 100))", FUNCTIONS),
    Fault("functions", "functions.py", "ar.where(ar.upper(q) <= 0, zero, -most)", "ar.where(ar.lower(p) <= 0, zero, -most)", FUNCTIONS),
    Fault("functions", "functions.py", "        if n % 2:\n            return a, b", "        if n:\n            return a, b", FUNCTIONS),
    Fault("functions", "functions.py", "Fraction(1, 2), Fraction(4, 100)", "Fraction(1, 2), Fraction(3, 100)", FUNCTIONS),
    Fault("functions", "functions.py", "return ar.sub(-fp, width), ar.add(-fp, width)", "return -fp, -fp", FUNCTIONS),
    Fault("functions", "functions.py", "tail), 1.0, of=", "tail), 0.4, of=", FUNCTIONS),
    Fault("functions", "functions.py", "return Ball(x.mid * (x.mid > 0), x.rad, x.exponent)",
          "return Ball(x.mid * (x.mid > 0), x.rad * (x.mid > 0), x.exponent)", FUNCTIONS),
    # bounds in claim.py, check.py and rules/evaluation.py
    Fault("split", "claim.py", "low[coordinate] = high[coordinate] = at", "low[coordinate], high[coordinate] = np.nextafter(at, np.inf), at",
          LINEAR),
    Fault("split", "claim.py", "return self._replace(high=high), self._replace(low=low)", "return self._replace(high=high), self._replace(high=high)",
          LINEAR),
    Fault("split", "check.py", "if not part.low[coordinate] <= at <= part.high[coordinate]:", "if False:", LINEAR),
    Fault("split", "check.py", "Range(np.minimum(a.low, b.low), np.maximum(a.high, b.high))",
          "Range(np.maximum(a.low, b.low), np.maximum(a.high, b.high))", LINEAR),
    Fault("both", "check.py", "Range(np.maximum(a.low, b.low), np.minimum(a.high, b.high))",
          "Range(np.maximum(a.low, b.low), np.minimum(a.high, b.low))", LINEAR),
    Fault("bounds", "claim.py", "if not (low <= high).all():", "if False:", LINEAR),
    Fault("bounds", "check.py", "if (stated.low > proved.low).any() or", "if (stated.low > proved.high).any() or", LINEAR),
    Fault("bounds", "check.py", 'if verdict == "PROVED" and not reached:', "if False:", LINEAR),
    Fault("bounds", "check.py", "not _all_at_least(high, least)", "not _all_at_least(low, least)", LINEAR),
    Fault("bounds", "check.py", "_all_at_least(-stated.high, [-t for t in most])", "_all_at_least(-stated.high, [])", LINEAR),
    Fault("bounds", "check.py", "value >= t for value", "value >= float(t) for value", LINEAR),
    Fault("point", "rules/evaluation.py", "not ((domain.low <= numbers) & (numbers <= domain.high)).all()", "False", LINEAR),
    Fault("point", "rules/evaluation.py", "return Range(-everything, everything)",
          "return Range(job.attained[-1].low.min(0), job.attained[-1].high.max(0))", LINEAR),
    Fault("point", "rules/evaluation.py", "job.attained.append(job.enclose(ids, numbers))",
          "job.attained.append(job.enclose(ids, numbers * 0 + domain.low))", LINEAR),
    # rules/cut.py, and rule solver
    Fault("cut", "rules/cut.py", "if not empty and ((stated.low > found.low).any() or (stated.high < found.high).any()):", "if False:", CUT),
    Fault("cut", "rules/cut.py", "_shape(graph, site) != _shape(graph, mechanism)", "False", CUT),
    Fault("cut", "rules/cut.py", "if site in errors or not", "if not", CUT),
    Fault("cut", "rules/cut.py", "[*low, least], [*high, most]", "[*low, least / 2], [*high, most / 2]", CUT),
    Fault("cut", "rules/cut.py", 'new[n] = graph.add("add", new[mechanism], error)', "new[n] = new[mechanism]", CUT),
    Fault("solver", "rules/evaluation.py", 'job.axioms.add("solver:z3")', "pass", CUT),
    Fault("solver", "check.py", "if refused := sorted(set(axioms) & set(forbid)):", "if refused := []:", CUT),
    Fault("solver", "check.py", "[*claim.axioms, *sorted(job.axioms)]", "listed", CUT),
]  # fmt: skip
