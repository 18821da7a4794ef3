# Rails and Active Record on PostgreSQL. Environment: DATABASE_URL, SECRET_KEY_BASE, NOTIFIER_URL, NOTIFIER_JWT_SECRET.
# Gems: rails, pg, puma, jwt.

require "active_record/railtie"
require "action_controller/railtie"
require "jwt"

module Shop
  class Application < Rails::Application
    config.load_defaults 6.1
    config.eager_load = Rails.env.production?
    config.logger = Logger.new($stdout)
  end
end
