//! The real server on ports of the system's choice, real WebSocket clients, a real SQLite file.
