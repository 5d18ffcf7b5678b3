package httpapi

// ISOMillis is exported to the tests of the service.
var ISOMillis = isoMillis
