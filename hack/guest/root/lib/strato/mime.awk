# Splits MIME multipart user-data into files of `dir`; prints "FILE TYPE ENCODING" for each part, in order.
function done() {
  if (file != "") { close(file); print file, type, encoding }
  file = ""
}
{ sub(/\r$/, "") }
boundary == "" {
  if (match($0, /boundary=("[^"]+"|[^ ;]+)/)) {
    boundary = substr($0, RSTART + 9, RLENGTH - 9)
    gsub(/"/, "", boundary)
  }
  next
}
$0 == "--" boundary || $0 == "--" boundary "--" {
  done()
  file = sprintf("%s/part-%03d", dir, ++parts)
  printf "" >file
  type = "text/plain"; encoding = "7bit"; heading = 1
  if ($0 == "--" boundary "--") { file = ""; exit }
  next
}
file == "" { next }
heading && /^$/ { heading = 0; next }
heading {
  header = tolower($0)
  if (match(header, /^content-type: *[^ ;]+/)) { type = substr(header, 1, RLENGTH); sub(/^content-type: */, "", type) }
  if (header ~ /^content-transfer-encoding: *base64/) encoding = "base64"
  next
}
{ print >file }
END { done() }
