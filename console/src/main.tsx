// The console: a gRPC-Web client of the public API, and nothing else.

import "./styles/index.css";
