# As `rails new` writes it, but for the address, and for clients that come back on the same connection.
threads_count = ENV.fetch("RAILS_MAX_THREADS", 5)
threads threads_count, threads_count
environment "production"
bind "tcp://127.0.0.1:#{ENV.fetch("PORT")}"
persistent_timeout 75
rackup File.join(__dir__, "rails.ru")
