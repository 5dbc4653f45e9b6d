"""``mote search``: over which experts, how many and by which factor, for most effect at bounded harm."""
