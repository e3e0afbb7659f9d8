module my-resolver

go 1.24
