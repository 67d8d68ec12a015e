# What a network-config of version 2 (netplan's) says of one NIC, -v nic=NAME -v mac=MAC, as lines of one setting each:
#   rename NAME | mtu N | dhcp | address A/N | route TO VIA METRIC | dns A | search DOMAIN
# Ends with 1 when it says nothing of it. Reads the YAML that such files are written in (block and flow style, JSON too;
# no anchors, tags or multi-line scalars) into `value`, by the path to a scalar, its keys and indices divided by tabs.
function plain(text) {
  gsub(/^[ \t]+|[ \t]+$/, "", text)
  if (text ~ /^".*"$/ || text ~ /^'.*'$/) text = substr(text, 2, length(text) - 2)
  return text
}
function uncommented(text,  i, c, quote, before) {
  for (i = 1; i <= length(text); i++) {
    c = substr(text, i, 1)
    if (quote != "") { if (c == quote) quote = "" }
    else if ((c == "\"" || c == "'") && before ~ /^[ ,:[{-]?$/) quote = c
    else if (c == "#" && (i == 1 || before == " ")) return substr(text, 1, i - 1)
    before = c
  }
  return text
}
function depth_of(text,  opened, closed) {
  opened = gsub(/[[{]/, "", text)
  closed = gsub(/[]}]/, "", text)
  return opened - closed
}
function put(path, text) {
  if (text ~ /^[[{]/) { rest = text; flow(path) }
  else { paths[++many] = path; value[path] = plain(text) }
}
function upto(pattern,  text, end) {
  sub(/^ +/, "", rest)
  if (match(rest, /^("[^"]*"|'[^']*') */)) end = RLENGTH
  else end = match(rest, pattern) ? RSTART - 1 : length(rest)
  text = substr(rest, 1, end)
  rest = substr(rest, end + 1)
  return plain(text)
}
function flow(path,  open, key, at) {
  sub(/^ +/, "", rest)
  open = substr(rest, 1, 1)
  if (open != "{" && open != "[") { put(path, upto("[],}]")); return }
  rest = substr(rest, 2)
  while (sub(/^[ ,]+/, "", rest) || rest != "") {
    if (rest ~ /^[]}]/) { rest = substr(rest, 2); return }
    if (open == "[") { flow(path "\t" at++ ""); continue }
    key = upto(":( |$)|:")
    sub(/^ *: */, "", rest)
    flow(path "\t" key)
  }
}
function line(text,  indent, key) {
  for (;;) {
    match(text, /^ */)
    indent = RLENGTH
    # A list may stand at the indentation of its key.
    while (top > 0 && (margin[top] > indent || (margin[top] == indent && !(text ~ /^ *-( |$)/ && !item[top])))) top--
    if (text !~ /^ *-( |$)/) break
    key = where[top] "\t" items[where[top]]++ ""
    where[++top] = key; margin[top] = indent; item[top] = 1
    sub(/-/, " ", text)
    if (text ~ /^ *$/) return
  }
  text = substr(text, indent + 1)
  if (text !~ /^[[{]/ && match(text, /^("[^"]*"|'[^']*'|[^"' ][^ ]*) *:( +|$)/)) {
    key = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    sub(/ *: *$/, "", key)
    key = where[top] "\t" plain(key)
    if (text != "") put(key, text)
    else { where[++top] = key; margin[top] = indent; item[top] = 0 }
  } else put(where[top], text)
}
{ sub(/\r$/, ""); $0 = uncommented($0); sub(/ +$/, "") }
held == "" && /^(---.*|%.*|\.\.\.)?$/ { next }
{
  held = held == "" ? $0 : held " " $0
  if (depth_of(held) > 0) next
  line(held)
  held = ""
}

function say(setting, text) {
  gsub(/[^A-Za-z0-9.:\/_% -]/, "", text)
  sub(/ +$/, "", text)
  if (text != "") print setting, text
}
function is_true(text) { return tolower(text) ~ /^(true|yes|on|1)$/ }
function like(pattern, name) {
  gsub(/[.+^$(){}|\\]/, "\\\\&", pattern)
  gsub(/\*/, ".*", pattern)
  gsub(/\?/, ".", pattern)
  return name ~ ("^" pattern "$")
}
function is_ours(own,  wanted_mac, wanted_name) {
  wanted_mac = tolower(value[own "\tmatch\tmacaddress"])
  wanted_name = value[own "\tmatch\tname"]
  if (wanted_mac == "" && wanted_name == "") return id == nic
  if (wanted_mac != "" && wanted_mac != tolower(mac)) return 0
  return wanted_name == "" || like(wanted_name, nic) || value[own "\tset-name"] == nic
}
# Whether path number i is under `own`, NAME; then `keys` is the rest of it and `text` its value.
function is_in(own, name, i,  start) {
  start = own "\t" name "\t"
  if (substr(paths[i], 1, length(start)) != start) return 0
  split(substr(paths[i], length(start) + 1), keys, "\t")
  text = value[paths[i]]
  return 1
}
function route(to, via, metric) {
  if (via == "") return
  if (to == "0.0.0.0/0" || to == "::/0") to = "default"
  say("route", to " " via " " metric)
}
END {
  for (i = 1; i <= many && ours == ""; i++) {
    n = split(paths[i], part, "\t")
    at = part[2] == "network" ? 3 : 2
    id = part[at + 1]
    own = (at == 3 ? "\tnetwork" : "") "\tethernets\t" id
    if (part[at] == "ethernets" && n > at + 1 && is_ours(own)) ours = own
  }
  if (ours == "") exit 1
  if (value[ours "\tset-name"] != nic) say("rename", value[ours "\tset-name"])
  say("mtu", value[ours "\tmtu"])
  # An address may be a map from it to its options.
  for (i = 1; i <= many; i++) if (is_in(ours, "addresses", i)) say("address", keys[2] == "" ? text : keys[2])
  if (is_true(value[ours "\tdhcp4"])) print "dhcp"
  route("default", value[ours "\tgateway4"])
  route("default", value[ours "\tgateway6"])
  for (i = 1; i <= many; i++) if (is_in(ours, "routes", i)) { routes = keys[1] + 1; of[keys[1], keys[2]] = text }
  for (i = 0; i < routes; i++) route(of[i, "to"], of[i, "via"], of[i, "metric"])
  for (i = 1; i <= many; i++) if (is_in(ours, "nameservers\taddresses", i)) say("dns", text)
  for (i = 1; i <= many; i++) if (is_in(ours, "nameservers\tsearch", i)) say("search", text)
}
