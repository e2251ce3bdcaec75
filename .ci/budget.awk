# Says which packages took longer than their budget, by the output of `go test`. It
# fails only if one took more than FACTOR times as long, and neither a busy machine
# nor real Kafka explains it.
#
#   awk -f .ci/budget.awk .ci/budget OUTPUT
BEGIN { FACTOR = 3 }

FNR == NR {
	if ($1 != "" && $1 !~ /^#/) budget[$1] = $2
	next
}

$1 == "ok" && $3 ~ /^[0-9.]+s$/ {
	name = $2
	if (split(name, part, "/") > 3) sub("^" part[1] "/" part[2] "/" part[3] "/", "", name)
	allowed = (name in budget) ? budget[name] : budget["others"]
	if ($3 + 0 > allowed) over[++count] = sprintf("%s took %s, its budget is %d s", name, $3, allowed)
	if ($3 + 0 > FACTOR * allowed) far++
}

END {
	for (i = 1; i <= count; i++) print "OVER BUDGET: " over[i]
	if (!count) exit 0
	load = ENVIRON["LOAD"]
	if (load == "") {
		"uptime" | getline load
		sub(/.*load averages?: /, "", load)
		split(load, average, /,? +/)
		load = average[2] # of five minutes
	}
	cores = ENVIRON["CORES"]
	if (cores == "") "getconf _NPROCESSORS_ONLN" | getline cores
	printf "OVER BUDGET: the load is %s on %d cores; budgets (.ci/budget) are for an idle machine with two\n", load, cores
	exit far && ENVIRON["OONA_KAFKA"] == "" && load + 0 <= 3 * cores
}
