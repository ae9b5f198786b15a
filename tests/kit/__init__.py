"""What several tests share, one module for each kind of thing: archives, projects, boards, machines, commands, ..."""
