module tidemill/tests/kubernetes_apis

go 1.26.0
