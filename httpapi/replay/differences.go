package replay

// Difference is something that Lockwood does otherwise than upstream, on purpose.
type Difference struct {
	Name       string   // its section in docs/http.md
	Status     int      // the status, or 0 if only the body differs
	Body       string   // the body, or "" for {"error": any text}
	AnyBody    bool     // the body does not count
	RetryAfter bool     // there is a Retry-After header
	Exchanges  []string // the recorded exchanges that show it, by Exchange.Name
}

// differenceOf returns the difference that e is listed under, or nil.
func differenceOf(e *Exchange) *Difference {
	for i := range Differences {
		for _, name := range Differences[i].Exchanges {
			if name == e.Name() {
				return &Differences[i]
			}
		}
	}
	return nil
}

// Differences are all deliberate differences that the recording can show.
var Differences = []Difference{
	{Name: "Malformed bodies", Status: 400, Exchanges: []string{
		"body/string",
		"body/number",
		"body/true",
		"malformed/truncated",
		"malformed/not_json",
		"malformed/trailing_garbage",
		"malformed/two_values",
		"malformed/nan",
		"malformed/raw_control_char",
		"malformed/secret_in_broken_json",
		"malformed/bad_escape",
		"malformed/log_leak_after_token",
		"malformed/log_leak_token_then_garbage",
		"malformed/log_leak_nan_after",
		"encoding/gzip_corrupt",
		"no_key/malformed_json",
	}},
	{Name: "The token comes first", Status: 401, Exchanges: []string{
		"malformed/unauthenticated_malformed",
		"size/json_1048577_unauthenticated",
	}},
	{Name: "Names of unknown fields", Exchanges: []string{
		"body/unknown_field",
		"body/case_variant_field",
		"body/constructor_key",
		"body/constructor_prototype_key",
		"malformed/deep_nesting_5000",
	}},
	{Name: "Oversized bodies", Status: 413, Exchanges: []string{
		"form/urlencoded_56kb_plus",
		"size/json_1048577",
		"size/json_2000000",
		"size/chunked_1048577",
	}},
	{Name: "Unknown content encodings", Status: 415, Exchanges: []string{
		"encoding/x-unknown",
	}},
	{Name: "NUL characters", Status: 400, Exchanges: []string{
		"body/nul_in_scopes",
		"body/nul_in_clientId",
		`endpoints/"https://idp.example.com/\u0000"`,
	}},
	{Name: "Dates", Status: 400, Exchanges: []string{
		"dates/2030-02-29",
		"dates/2030-02-30",
		"dates/0",
		"dates/32",
		"dates/49",
		"dates/99",
		"dates/100",
		"dates/foo 1",
		"dates/hello 2030",
		"dates/0000-01-01T00:00:00Z",
		"dates/-271821-04-20T00:00:00.000Z",
	}},
	{Name: "Token endpoints", Status: 400, Exchanges: []string{
		`endpoints/"https://idp.example.com:22/token"`,
		`endpoints/"https://user:pass@idp.example.com/token"`,
		`endpoints/"https://user@idp.example.com/token"`,
		`endpoints/"https://127.0.0.1@idp.example.com/token"`,
		`endpoints/"https://localhost.localdomain/token"`,
		`endpoints/"https://localhost6/"`,
		`endpoints/"https://ip6-localhost/token"`,
		`endpoints/"https://ip6-loopback/"`,
		`endpoints/"https://4294967295/"`,
		`endpoints/"https://[::2]/"`,
		`endpoints/"https://[::127.0.0.1]/token"`,
		`endpoints/"https://[::169.254.169.254]/"`,
		`endpoints/"https://[64:ff9b::7f00:1]/"`,
		`endpoints/"https://[64:ff9b::169.254.169.254]/"`,
		`endpoints/"https://[64:ff9b:1::a9fe:a9fe]/"`,
		`endpoints/"https://[2002:a9fe:a9fe::1]/"`,
		`endpoints/"https://[2001:0:4136:e378:8000:63bf:5601:5601]/"`,
		`endpoints/"https://[ff02::1]/"`,
		`endpoints/"https://[fc00::1]/"`,
		`endpoints/"https://metadata.google.internal/"`,
		`endpoints/"https://instance-data/latest"`,
		`endpoints/"https://168.63.129.16/"`,
		`endpoints/"https://255.255.255.255/"`,
	}},
	{Name: "User IDs", Status: 401, Exchanges: []string{
		`claims/id="0x10"`,
		`claims/id="0b11"`,
		"claims/id=2147483648",
		"claims/id=4294967296",
		`claims/id=" 245 "`,
		`claims/id="7.0"`,
		`claims/id="7."`,
		"claims/id=1e3",
		`claims/id="\ufeff7"`,
		`claims/id="\u00a07"`,
	}},
	{Name: "Tokens that never expire", Status: 401, Exchanges: []string{
		"auth/typ_other",
	}},
	{Name: "Critical token headers", Status: 401, Exchanges: []string{
		"auth/crit_unknown",
	}},
	{Name: "Two tokens", Status: 401, Exchanges: []string{
		"auth/cookie_user5_and_header_user6",
	}},
	{Name: "A database that is down", Status: 503, Body: `{"code":"database_unavailable"}`, RetryAfter: true, Exchanges: []string{
		"db_down/delete",
	}},
	{Name: "Broken HTTP", AnyBody: true, Exchanges: []string{
		"methods/no_host_header",
		"methods/bad_request_line",
		"methods/content_length_short_of_body",
	}},
	{Name: "Routes that are not served", Status: 404, Body: "Not Found", Exchanges: []string{
		"methods/POST /runs/1/trigger",
		"methods/PUT /runs/1",
	}},
}
