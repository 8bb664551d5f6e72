module example.test/server
require example.test/lib v1.0.0
