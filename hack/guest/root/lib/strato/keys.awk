# SSH public keys of a cloud-config or of NoCloud meta-data, as lines "USER KEY". Keys at the top level, those of the
# user `default` and those in one-line (flow) user lists are root's; a user whose
# name is no account name gets none. Only lists under ssh_authorized_keys or public-keys count.
function flush(  i) {
  for (i = 1; i <= held && user != "-"; i++) print (user == "" || user == "default" ? "root" : user), keys[i]
  held = 0
  user = ""
}
function take(text) {
  while (match(text, /(ssh-(rsa|ed25519|dss)|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9-]+@openssh\.com) +[A-Za-z0-9+\/]+=*[^]"',}]*/)) {
    keys[++held] = substr(text, RSTART, RLENGTH)
    sub(/ +$/, "", keys[held])
    text = substr(text, RSTART + RLENGTH)
  }
}
{ sub(/\r$/, "") }
/^ *(#|$)/ { next }
{
  match($0, /^ */)
  indent = RLENGTH
  dashed = substr($0, indent + 1, 1) == "-"
  if (indent == 0 && !dashed) { flush(); users = /^["']?users["']? *:/; item = -1; listing = 0 }
  if (users && dashed && (item < 0 || indent == item)) { flush(); item = indent; listing = 0 }
  line = $0
  if (dashed && !listing) { sub(/- */, "  ", line); match(line, /^ */); indent = RLENGTH }
  if (users && line ~ /^ *["']?name["']? *:/) {
    user = line
    sub(/^ *["']?name["']? *: */, "", user)
    gsub(/["' ]/, "", user)
    if (user !~ /^[a-z_][a-z0-9_-]*$/) user = "-"
  }
  if (line ~ /(ssh[_-]authorized[_-]keys|public[-_]keys)["']? *:/) { listing = 1; depth = indent; take(line); next }
  if (listing && indent <= depth && !dashed) listing = 0
  if (listing) take(line)
}
END { flush() }
