DELETE FROM lockwood_instances WHERE last_seen < strftime({{time_format}}, 'now', '-1 day')
