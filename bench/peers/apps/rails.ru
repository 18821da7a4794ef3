# Rails in one file: no database, no sessions, in production mode. A poll waits in the thread of Puma that took it.

require "action_controller/railtie"

KEPT = 100
WAIT_S = 25.0

# The newest messages of each topic, and the polls that wait for more.
class Topic
  ALL = Hash.new { |topics, name| topics[name] = new }
  LOCK = Mutex.new

  class << self
    attr_accessor :last
  end
  self.last = 0

  def initialize
    @messages = []
    @changed = ConditionVariable.new
  end

  def publish(data)
    id = (self.class.last += 1).to_s
    @messages.push({ id: id, data: data })
    @messages.shift if @messages.length > KEPT
    @changed.broadcast
    { id: id }
  end

  def poll(after)
    deadline = now + WAIT_S
    while (found = since(after)).empty? && (left = deadline - now) > 0
      @changed.wait(LOCK, left)
    end
    { cursor: found.empty? ? after.to_s : found.last[:id], messages: found }
  end

  private

  def since(after) = @messages.drop_while { |message| message[:id].to_i <= after }

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
end

class TopicsController < ActionController::API
  def poll
    render json: Topic::LOCK.synchronize { Topic::ALL[params[:topic]].poll(params[:after].to_i) }
  end

  def publish
    data = JSON.parse(request.raw_post)
    render json: Topic::LOCK.synchronize { Topic::ALL[params[:topic]].publish(data) }, status: :created
  end

  def health
    render json: { status: "ok" }
  end
end

class Application < Rails::Application
  config.eager_load = true
  config.secret_key_base = SecureRandom.hex
  config.logger = Logger.new(IO::NULL)
  routes.append do
    get "poll/:topic", to: "topics#poll"
    post "publish/:topic", to: "topics#publish"
    get "health", to: "topics#health"
  end
end

run Application.initialize!
