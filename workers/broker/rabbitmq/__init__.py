"""Taking, sharing and settling messages where the broker is RabbitMQ."""
